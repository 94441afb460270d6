//! Evidence of a launch, and `kata-cc verify` on it: accepted as made; each test changes one thing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use agent_evidence::{
    LaunchMeasurement,
    log::{ContainerDigests, ContainerEntry, Entry, MeasurementLog},
};
use guest_image_measurement::{Sha256Digest, VcpuCount, VcpuModel};
use policy_appraisal::{
    Endorsements, LoggedEvidence,
    snp::{Product, SigningKey, UnverifiedReport},
};
use serde_json::{Value, json};
use tests_simulated_psp::{
    authority::Authority,
    launch::{Launch, SnpObject},
    processor::{Files, Guest, Model},
    serve::certificate_table,
};

use crate::owner::{FIRMWARE, HOST_DATA, POLICY, references};

pub(crate) const NONCE: &[u8] = b"the verifier's nonce";

/// A launch, the log, and what the owner says; right as made.
pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) model: Model,
    pub(crate) launch: Launch,
    pub(crate) files: Files,
    pub(crate) nonce: Vec<u8>,
    pub(crate) log: MeasurementLog,
    /// In place of the log that the report binds.
    pub(crate) told: Option<MeasurementLog>,
    /// Whether certificates are in the evidence.
    pub(crate) endorsed: bool,
    pub(crate) references: Value,
    /// What the launch must bind.
    pub(crate) binding: Vec<String>,
    pub(crate) arguments: Vec<String>,
}

impl Scene {
    pub(crate) fn open() -> Option<Self> {
        for needed in [Path::new(FIRMWARE), &kata_cc()] {
            if !needed.exists() {
                eprintln!("skipped: no {}; run hack/build", needed.display());
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::create_dir(&image).unwrap();
        let files = Files {
            kernel: b"a kernel".to_vec(),
            initrd: b"an initrd".to_vec(),
            firmware: fs::read(FIRMWARE).unwrap(),
        };
        write_image(&image, &files);
        let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authority");
        let references = references(Product::Genoa, LaunchMeasurement([0; 48]));
        Some(Self {
            authority: Authority::open(&authority).unwrap(),
            model: Model {
                product: Product::Genoa,
                signing_key: SigningKey::Vcek,
                report_version: 5,
            },
            launch: Launch {
                kernel: PathBuf::new(),
                initrd: PathBuf::new(),
                cmdline: "console=ttyS0 quiet".to_owned(),
                firmware: FIRMWARE.into(),
                vcpus: VcpuCount::new(2).unwrap(),
                model: VcpuModel::Epyc,
                snp: SnpObject {
                    policy: POLICY,
                    host_data: HOST_DATA,
                    identity: None,
                },
            },
            files,
            nonce: NONCE.to_vec(),
            log: log(&["web"]),
            told: None,
            endorsed: true,
            references: serde_json::to_value(references).unwrap(),
            binding: vec!["--host-data".to_owned(), hex::encode(HOST_DATA)],
            arguments: Vec::new(),
            folder,
        })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn guest(&self) -> Guest {
        Guest::launch(&self.launch, &self.files).unwrap()
    }

    pub(crate) fn evidence(&self) -> String {
        let bound = self.log.bound_report_data(&self.nonce);
        let chip = self.authority.chip();
        let report = self.model.report(&self.guest(), chip, &bound.0);
        let table = certificate_table(&self.authority, self.model).unwrap();
        let endorsements = match self.endorsed {
            true => Endorsements::parse(&table).unwrap(),
            false => Endorsements::default(),
        };
        let evidence = LoggedEvidence {
            report: UnverifiedReport::parse(&report).unwrap(),
            endorsements,
            nonce: self.nonce.clone(),
            log: self.told.clone().unwrap_or_else(|| self.log.clone()),
        };
        evidence.to_json()
    }

    pub(crate) fn verify(&self, more: &[&str]) -> Output {
        fs::write(self.path("evidence.json"), self.evidence()).unwrap();
        fs::write(self.path("references.json"), self.references.to_string()).unwrap();
        let mut command = Command::new(kata_cc());
        command
            .args(["verify", &self.path("evidence.json")])
            .args(["--references", &self.path("references.json")])
            .args(["--guest-image", &self.path("image"), "--vcpus", "2"])
            .args(["--nonce", &hex::encode(NONCE)])
            .args(&self.binding);
        if !self.arguments.iter().any(|word| word == "--roots") {
            command.arg("--roots").arg(self.authority.roots());
        }
        command.args(&self.arguments).args(more).output().unwrap()
    }

    /// The checks that refused, each once, and what the exit code says.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let output = self.verify(&["--json"]);
        let (verdict, code) = (json_of(&output), output.status.code());
        let checks = verdict["checks"].as_array().unwrap().iter();
        let refused = checks.filter(|check| check["outcome"] == "refused");
        let names: Vec<String> = refused
            .map(|check| check["check"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(verdict["accepted"], names.is_empty());
        assert_eq!(code, Some(i32::from(!names.is_empty())));
        names
    }
}

pub(crate) fn kata_cc() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_simulated-psp")).with_file_name("kata-cc")
}

pub(crate) fn json_of(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

pub(crate) fn write_image(image: &Path, files: &Files) {
    let digest = |content| Sha256Digest::of(content).to_string();
    let listed = [("vmlinuz", &files.kernel), ("initrd.img", &files.initrd)];
    let mut entries = BTreeMap::new();
    for (name, content) in listed {
        fs::write(image.join(name), content).unwrap();
        entries.insert(
            name,
            json!({"sha256": digest(content), "bytes": content.len()}),
        );
    }
    let manifest = json!({"schema": 1, "cmdline": "console=ttyS0 quiet", "files": entries});
    fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
}

/// A log of containers of one image each, named by its digest.
pub(crate) fn log(images: &[&str]) -> MeasurementLog {
    let mut log = MeasurementLog::new();
    for (number, image) in images.iter().enumerate() {
        let entry = Entry::from(ContainerEntry {
            container: "c1".to_owned(),
            image: Some((*image).to_owned()),
            digests: ContainerDigests {
                process: agent_evidence::Sha256Digest([1; 32]),
                environment: agent_evidence::Sha256Digest([2; 32]),
                mounts: agent_evidence::Sha256Digest([3; 32]),
                rights: agent_evidence::Sha256Digest([4; 32]),
                settings: agent_evidence::Sha256Digest([5; 32]),
            },
            marks: Vec::new(),
            chosen: Vec::new(),
            count: 1 + images
                .iter()
                .take(number)
                .filter(|one| one == &image)
                .count() as u64,
        });
        log.append(entry.event().unwrap()).unwrap();
    }
    log
}
