//! `kata-cc verify` and `kata-cc measure`, on evidence of the simulated processor.
//!
//! Needs the firmware of Debian's `ovmf-amdsev` and a built `kata-cc`; says what is missing
//! and passes otherwise.

#![expect(clippy::unwrap_used, reason = "this is all test code")]

mod owner;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use agent_evidence::{
    Endorsements, LaunchMeasurement,
    evidence::LoggedEvidence,
    log::{Event, MeasurementLog, Operation},
    snp::{Product, SigningKey, UnverifiedReport},
};
use guest_image_measurement::{VcpuCount, VcpuModel};
use serde_json::{Value, json};
use tests_simulated_psp::{
    authority::Authority,
    kds::{Behaviour, INTERMEDIATE, Kds},
    launch::{Launch, SnpObject},
    processor::{Files, Guest, Model},
    serve::certificate_table,
};

use owner::{FIRMWARE, HOST_DATA, POLICY, references};

const NONCE: &[u8] = b"the verifier's nonce";

/// A launch, the log, and what the owner says; right as made.
struct Scene {
    folder: tempfile::TempDir,
    authority: Authority,
    model: Model,
    launch: Launch,
    files: Files,
    nonce: Vec<u8>,
    log: MeasurementLog,
    /// In place of the log that the report binds.
    told: Option<MeasurementLog>,
    /// Whether certificates are in the evidence.
    endorsed: bool,
    references: Value,
    arguments: Vec<String>,
}

impl Scene {
    fn open() -> Option<Self> {
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
            arguments: Vec::new(),
            folder,
        })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn guest(&self) -> Guest {
        Guest::launch(&self.launch, &self.files).unwrap()
    }

    fn evidence(&self) -> String {
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

    fn verify(&self, more: &[&str]) -> Output {
        fs::write(self.path("evidence.json"), self.evidence()).unwrap();
        fs::write(self.path("references.json"), self.references.to_string()).unwrap();
        let mut command = Command::new(kata_cc());
        command
            .args(["verify", &self.path("evidence.json")])
            .args(["--references", &self.path("references.json")])
            .args(["--guest-image", &self.path("image"), "--vcpus", "2"])
            .args(["--nonce", &hex::encode(NONCE)])
            .args(["--host-data", &hex::encode(HOST_DATA)]);
        if !self.arguments.iter().any(|word| word == "--roots") {
            command.arg("--roots").arg(self.authority.roots());
        }
        command.args(&self.arguments).args(more).output().unwrap()
    }

    /// The checks that refused, each once, and what the exit code says.
    fn refusals(&self) -> Vec<String> {
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

fn kata_cc() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_simulated-psp")).with_file_name("kata-cc")
}

fn json_of(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

fn write_image(image: &Path, files: &Files) {
    let digest = |content| guest_image_measurement::Sha256Digest::of(content).to_string();
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

fn log(containers: &[&str]) -> MeasurementLog {
    let mut log = MeasurementLog::new();
    for name in containers {
        log.append(Event::of(Operation::Container, name).unwrap())
            .unwrap();
    }
    log
}

type Change = fn(&mut Scene);

#[test]
fn each_change_is_refused_by_its_name_and_none_is_accepted() {
    let changes: [(&str, Change, &[&str]); 13] = [
        ("nothing", |_| {}, &[]),
        ("kernel", |s| s.files.kernel[0] ^= 1, &["guest-identity"]),
        ("initrd", |s| s.files.initrd.push(0), &["guest-identity"]),
        (
            "command line",
            |s| s.launch.cmdline.push_str(" debug"),
            &["guest-identity"],
        ),
        (
            "vcpus",
            |s| s.launch.vcpus = VcpuCount::new(3).unwrap(),
            &["guest-identity"],
        ),
        (
            "vcpu type",
            |s| s.launch.model = VcpuModel::Milan,
            &["guest-identity"],
        ),
        (
            "initdata or policy",
            |s| s.launch.snp.host_data[31] ^= 1,
            &["host-data"],
        ),
        (
            "replayed nonce",
            |s| s.nonce = b"an earlier nonce".to_vec(),
            &["report-data"],
        ),
        (
            "debug policy",
            |s| s.launch.snp.policy |= 1 << 19,
            &["debug"],
        ),
        (
            "old TCB",
            |s| s.references["products"]["Genoa"]["tcb"]["snp"] = 24.into(),
            &["tcb-floor"],
        ),
        (
            "edited log",
            |s| s.told = Some(log(&["wab"])),
            &["report-data", "measurement-log"],
        ),
        (
            "entry dropped from the log",
            |s| s.told = Some(log(&[])),
            &["report-data", "measurement-log"],
        ),
        (
            "refused product",
            |s| s.references["refused_products"] = json!(["Genoa"]),
            &["refused-product"],
        ),
    ];
    for (name, change, expected) in changes {
        let Some(mut scene) = Scene::open() else {
            return;
        };
        change(&mut scene);
        assert_eq!(scene.refusals(), expected, "{name}");
    }
}

#[test]
fn a_report_of_a_stranger_is_refused() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Authority::open(&stranger.path().join("authority")).unwrap();
    let ours = std::mem::replace(&mut scene.authority, stranger);
    scene.arguments = vec!["--roots".to_owned(), ours.roots().display().to_string()];
    assert_eq!(scene.refusals(), ["chain"]);
}

#[test]
fn amds_roots_are_the_default_and_did_not_sign_this() {
    let Some(scene) = Scene::open() else { return };
    scene.verify(&[]);
    let output = Command::new(kata_cc())
        .args(["verify", &scene.path("evidence.json"), "--nonce", "00"])
        .args(["--references", &scene.path("references.json"), "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let verdict = json_of(&output);
    let chain = verdict["checks"].as_array().unwrap().iter();
    let chain = chain.filter(|check| check["check"] == "chain");
    assert_eq!(chain.last().unwrap()["outcome"], "refused");
}

#[test]
fn every_product_key_and_version_is_accepted() {
    let kinds = [SigningKey::Vcek, SigningKey::Vlek];
    for product in Product::ALL {
        for (signing_key, report_version) in kinds.into_iter().zip([2, 3]).chain([(kinds[0], 5)]) {
            let Some(mut scene) = Scene::open() else {
                return;
            };
            scene.model = Model {
                product,
                signing_key,
                report_version,
            };
            let references = references(product, LaunchMeasurement([0; 48]));
            scene.references = serde_json::to_value(references).unwrap();
            let refusals = scene.refusals();
            assert_eq!(
                refusals, [""; 0],
                "{product} {signing_key} {report_version}"
            );
        }
    }
}

#[test]
fn the_table_says_what_was_logged_and_how_it_ended() {
    let Some(scene) = Scene::open() else { return };
    let output = scene.verify(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("container  web"), "{text}");
    assert!(text.ends_with("\naccepted\n"), "{text}");
}

#[test]
fn time_decides_about_certificates_and_lists() {
    let Some(scene) = Scene::open() else { return };
    for (time, refused) in [
        ("2023-12-31T23:59:59Z", "validity"),
        ("2031-01-02T00:00:00Z", "revocation"),
    ] {
        let output = scene.verify(&["--json", "--time", time]);
        let verdict = json_of(&output);
        let checks = verdict["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["check"] == refused);
        assert_eq!(found.unwrap()["outcome"], "refused", "{time}");
    }
}

#[test]
fn what_cannot_be_judged_ends_with_another_code() {
    let Some(scene) = Scene::open() else { return };
    scene.verify(&[]);
    let verify = |evidence: &str, references: &str, more: &[&str]| {
        let mut command = Command::new(kata_cc());
        command.args(["verify", &scene.path(evidence)]);
        command.args(["--references", &scene.path(references)]);
        let output = command.args(more).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), errors)
    };
    fs::write(scene.path("typo.json"), r#"{"product":{}}"#).unwrap();
    let nonce = ["--nonce", "00"];
    for (evidence, references, more, code, named) in [
        ("none.json", "references.json", &nonce[..], 3, "none.json"),
        ("typo.json", "references.json", &nonce, 3, "evidence"),
        ("evidence.json", "typo.json", &nonce, 3, "product"),
        ("evidence.json", "references.json", &[], 3, "--nonce"),
        (
            "evidence.json",
            "references.json",
            &["--nonce", "x"],
            2,
            "--nonce",
        ),
        (
            "evidence.json",
            "references.json",
            &["--report-data", "00"],
            3,
            "--nonce",
        ),
    ] {
        let (found, errors) = verify(evidence, references, more);
        assert_eq!(found, Some(code), "{errors}");
        assert!(errors.contains(named), "{errors}");
    }
}

#[test]
fn a_digest_is_computed_and_another_explained() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    let measure = |scene: &Scene, more: &[&str]| {
        let mut command = Command::new(kata_cc());
        command.args(["measure", &scene.path("image")]);
        command.args(more).output().unwrap()
    };
    let expected = scene.guest().measurement().to_string();
    let output = measure(&scene, &["--vcpus", "2", "--json"]);
    assert_eq!(json_of(&output)[0]["launch_digest"], expected);
    scene.launch.vcpus = VcpuCount::new(7).unwrap();
    scene.launch.cmdline.push_str(" agent.debug_console");
    let other = scene.guest().measurement().to_string();
    let output = measure(&scene, &["--explain", &other]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("7 vCPUs of type EPYC,"), "{text}");
    assert!(text.contains("agent.debug_console"), "{text}");
    let output = measure(&scene, &["--explain", &"0".repeat(96)]);
    assert_eq!(output.status.code(), Some(3));
    fs::write(scene.path("image/vmlinuz"), "another").unwrap();
    let output = measure(&scene, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("vmlinuz"));
}

/// A scene whose certificates come from a key server.
fn served() -> Option<(Scene, Kds)> {
    let mut scene = Scene::open()?;
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authority");
    let authority = Authority::open(&authority).unwrap();
    let kds = Kds::start(authority, "127.0.0.1:0".parse().unwrap()).unwrap();
    scene.endorsed = false;
    scene.arguments = ["--store", &scene.path("store"), "--kds", &kds.url()]
        .map(str::to_owned)
        .to_vec();
    Some((scene, kds))
}

#[test]
fn what_the_store_lacks_is_fetched_once_and_the_list_each_time() {
    let Some((scene, kds)) = served() else { return };
    assert_eq!(scene.refusals(), [""; 0]);
    let first = kds.requests();
    assert_eq!(
        first[..2],
        ["/vcek/v1/Genoa/cert_chain", "/vcek/v1/Genoa/crl"]
    );
    assert!(first[2].contains("?blSPL=10&teeSPL=1&snpSPL=23&ucodeSPL=217"));
    assert_eq!(first.len(), 3);
    assert_eq!(scene.refusals(), [""; 0]);
    assert_eq!(kds.requests(), ["/vcek/v1/Genoa/crl"]);
}

#[test]
fn a_server_that_is_down_leaves_what_the_store_has() {
    let Some((scene, kds)) = served() else { return };
    kds.behave(Behaviour {
        down: true,
        ..Behaviour::default()
    });
    let output = scene.verify(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("503"));
    kds.behave(Behaviour::default());
    assert_eq!(scene.refusals(), [""; 0]);
    kds.behave(Behaviour {
        down: true,
        ..Behaviour::default()
    });
    assert_eq!(scene.refusals(), [""; 0]);
}

#[test]
fn a_revoked_intermediate_is_refused_at_once() {
    let Some((scene, kds)) = served() else { return };
    assert_eq!(scene.refusals(), [""; 0]);
    kds.behave(Behaviour {
        revoked: vec![INTERMEDIATE],
        ..Behaviour::default()
    });
    assert_eq!(scene.refusals(), ["revocation"]);
}

#[test]
fn a_limit_is_obeyed_as_long_as_it_is_short() {
    let Some((scene, kds)) = served() else { return };
    kds.behave(Behaviour {
        limited: 2,
        retry_after: 1,
        ..Behaviour::default()
    });
    let start = std::time::Instant::now();
    assert_eq!(scene.refusals(), [""; 0]);
    assert!(start.elapsed() >= std::time::Duration::from_secs(2));
    assert_eq!(kds.requests().len(), 5);
    let Some((scene, kds)) = served() else { return };
    kds.behave(Behaviour {
        limited: 1,
        retry_after: 3600,
        ..Behaviour::default()
    });
    let output = scene.verify(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("3600 s"));
}

#[test]
fn a_chip_that_the_server_does_not_know_is_named() {
    let Some((mut scene, _kds)) = served() else {
        return;
    };
    let stranger = tempfile::tempdir().unwrap();
    scene.authority = Authority::open(&stranger.path().join("authority")).unwrap();
    let output = scene.verify(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("the key server has no /vcek/v1/Genoa/")
    );
}
