//! `kata-cc verify --uvm-endorsement` on the real report of a container group on ACI.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

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

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../appraisal/tests/vectors/azure-aci")
        .join(name)
}

fn references(minimum_svn: u64) -> Value {
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
struct Owner {
    folder: TempDir,
    report: Vec<u8>,
}

impl Owner {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let report = fs::read(vector("snp_report.bin")).unwrap();
        let pem = fs::read(vector("uvm_host_amd_certificate.pem")).unwrap();
        let evidence = JsonEvidence {
            report: UnverifiedReport::parse(&report).unwrap(),
            endorsements: Endorsements::parse(&pem).unwrap(),
        };
        fs::write(folder.path().join("evidence.json"), evidence.to_json()).unwrap();
        Self { folder, report }
    }

    fn verify(&self, references: &Value, endorsement: Option<&Path>) -> Output {
        let folder = self.folder.path();
        fs::write(folder.join("references.json"), references.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kata-cc"));
        command
            .current_dir(folder)
            .args(["verify", "evidence.json", "--json"])
            .args(["--references", "references.json"])
            .args(["--time", "2025-06-01T00:00:00Z"])
            .args(["--report-data", &hex::encode(&self.report[0x50..0x90])])
            .args(["--host-data", &hex::encode(&self.report[0xC0..0xE0])]);
        if let Some(path) = endorsement {
            command.arg("--uvm-endorsement").arg(path);
        }
        command.output().unwrap()
    }
}

/// Exit code and the checks that refused.
fn outcome(output: &Output) -> (i32, Vec<String>) {
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = verdict["checks"].as_array().unwrap().iter();
    let refused = checks.filter(|check| check["outcome"] != "passed");
    let names = refused.map(|check| check["check"].as_str().unwrap().to_owned());
    (output.status.code().unwrap(), names.collect())
}

#[test]
fn an_endorsed_image_is_accepted_and_one_below_the_floor_is_not() {
    let owner = Owner::new();
    let real = vector("body.uvm_reference_info.bin");
    let both = ["uvm-endorsement", "guest-identity"].map(str::to_owned);
    let given = owner.verify(&references(22), Some(&real));
    assert_eq!(outcome(&given), (0, Vec::new()));
    let below = owner.verify(&references(100), Some(&real));
    assert_eq!(outcome(&below), (1, both.to_vec()));
    let other = vector("context.reference-info-base64");
    let other = owner.verify(&references(22), Some(&other));
    assert_eq!(outcome(&other), (1, both.to_vec()));
    let none = owner.verify(&references(22), None);
    assert_eq!(outcome(&none), (1, both.to_vec()));
}

#[test]
fn a_file_that_is_no_endorsement_is_named() {
    let owner = Owner::new();
    let report = owner.verify(&references(22), Some(&vector("snp_report.bin")));
    assert_eq!(report.status.code(), Some(3));
    let errors = String::from_utf8(report.stderr).unwrap();
    assert!(errors.contains("the UVM endorsement"), "{errors}");
    assert!(errors.contains("snp_report.bin"), "{errors}");
}
