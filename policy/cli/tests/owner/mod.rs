//! The owner of a real container group on ACI, who has a report and runs `kata-cc verify`.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use policy_appraisal::{
    Endorsements,
    snp::{JsonEvidence, UnverifiedReport},
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../appraisal/tests/vectors/azure-aci")
        .join(name)
}

pub fn references(minimum_svn: u64) -> Value {
    json!({
        "products": {
            "Milan": {"tcb": {"bootloader": 2, "tee": 0, "snp": 5, "microcode": 68}, "firmware": "1.49.3"},
        },
        "refused_products": [],
        "revocation": "optional",
        "guest_policy": {"abi_major": 0, "abi_minor": 31, "smt_allowed": true},
        "identities": {"endorsed": [{
            "issuer": "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2",
            "feed": "ContainerPlat-AMD-UVM",
            "minimum_svn": minimum_svn,
        }]},
        "platform": {"alias_check_complete": false},
    })
}

/// A folder with the evidence, and what its report binds.
pub struct Owner {
    pub folder: TempDir,
    pub report: Vec<u8>,
}

impl Owner {
    /// Whose evidence has its certificates.
    pub fn new() -> Self {
        Self::with(&fs::read(vector("uvm_host_amd_certificate.pem")).unwrap())
    }

    /// Whose evidence has these.
    pub fn with(certificates: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let report = fs::read(vector("snp_report.bin")).unwrap();
        let evidence = JsonEvidence {
            report: UnverifiedReport::parse(&report).unwrap(),
            endorsements: Endorsements::parse(certificates).unwrap(),
        };
        fs::write(folder.path().join("evidence.json"), evidence.to_json()).unwrap();
        Self { folder, report }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the command says of the evidence, with these arguments more, as JSON.
    pub fn verify(&self, references: &Value, more: &[&str]) -> Output {
        fs::write(self.path("references.json"), references.to_string()).unwrap();
        self.run(&[&["--json"], more].concat())
    }

    /// The same with the reference values that are there.
    pub fn run(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kata-cc"))
            .current_dir(self.folder.path())
            .args(["verify", "evidence.json"])
            .args(["--references", "references.json"])
            .args(["--time", "2025-06-01T00:00:00Z"])
            .args(["--report-data", &hex::encode(&self.report[0x50..0x90])])
            .args(["--host-data", &hex::encode(&self.report[0xC0..0xE0])])
            .args(more)
            .output()
            .unwrap()
    }
}

/// Exit code and the checks that refused.
pub fn outcome(output: &Output) -> (i32, Vec<String>) {
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = verdict["checks"].as_array().unwrap().iter();
    let refused = checks.filter(|check| check["outcome"] != "passed");
    let names = refused.map(|check| check["check"].as_str().unwrap().to_owned());
    (output.status.code().unwrap(), names.collect())
}
