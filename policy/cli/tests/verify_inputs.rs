//! What `kata-cc verify` takes beside evidence, and what it says when there is no verdict.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod owner;
#[path = "../../appraisal/tests/support/mod.rs"]
mod support;

use std::{
    fs,
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use guest_image_measurement::{
    Firmware, GuestImage, Launch, SevFeatures, Sha256Digest, VcpuCount, VcpuModel, Vmm,
};
use owner::{Owner, outcome, references, vector};
use policy_appraisal::{
    Endorsements,
    snp::{JsonEvidence, UnverifiedReport},
};
use serde_json::{Value, json};
use support::scene::Scene;
use tempfile::TempDir;

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// A folder with a scene's evidence, which has no certificates, and everything beside it.
struct Files {
    folder: TempDir,
    scene: Scene,
}

impl Files {
    fn new() -> Self {
        Self::of(Scene::genoa())
    }

    fn of(scene: Scene) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self { folder, scene };
        let evidence = JsonEvidence {
            report: UnverifiedReport::parse(&files.scene.signed()).unwrap(),
            endorsements: Endorsements::default(),
        };
        let roots = support::authority::root(files.scene.product).build();
        let list = files.scene.crl.as_ref().unwrap().build();
        let leaf = files.scene.leaf.build();
        let issuer = files.scene.issuer.build();
        for (name, content) in [
            ("evidence.json", evidence.to_json().as_bytes()),
            (
                "references.json",
                json!(files.scene.references).to_string().as_bytes(),
            ),
            ("roots.der", &roots),
            ("leaf.der", &leaf),
            ("issuer.pem", pem("CERTIFICATE", &issuer).as_bytes()),
            ("both.der", &[&leaf[..], &issuer].concat()),
            ("list.der", &list),
            ("list.pem", pem("X509 CRL", &list).as_bytes()),
            ("empty", b""),
        ] {
            files.write(name, content);
        }
        files
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    fn verify(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kata-cc"))
            .current_dir(self.folder.path())
            .args(["verify", "evidence.json", "--references", "references.json"])
            .args(["--roots", "roots.der", "--time", "2025-06-01T00:00:00Z"])
            .args([
                "--report-data",
                &"d1".repeat(64),
                "--host-data",
                &"d2".repeat(32),
            ])
            .args(more)
            .output()
            .unwrap()
    }

    fn outcome(&self, more: &[&str]) -> (i32, Vec<String>) {
        outcome(&self.verify(&[&["--json"], more].concat()))
    }
}

#[test]
fn certificates_and_lists_are_taken_as_files() {
    let files = Files::new();
    let accepted = (0, Vec::new());
    let given = ["--certificates", "leaf.der", "--certificates", "issuer.pem"];
    for (certificates, list) in [
        (&given[..], "list.der"),
        (&given, "list.pem"),
        (&["--certificates", "both.der"], "list.der"),
    ] {
        let arguments = [certificates, &["--revocation-list", list]].concat();
        assert_eq!(files.outcome(&arguments), accepted, "{arguments:?}");
    }
    // Each of them is needed.
    let (code, refused) = files.outcome(&["--revocation-list", "list.der"]);
    assert_eq!((code, refused[0].as_str()), (1, "certificate"));
    let list = ["--revocation-list", "list.der"];
    let (code, refused) = files.outcome(&[&given[..2], &list].concat());
    assert_eq!((code, refused[0].as_str()), (1, "chain"));
    let (code, refused) = files.outcome(&given);
    assert_eq!((code, refused[0].as_str()), (1, "revocation"));
}

/// Where a report has the launch measurement.
const MEASUREMENT: usize = 0x90;
const FIRMWARE: &[u8] =
    include_bytes!("../../../guest-image/measurement/tests/vectors/ovmf_AmdSev_suffix.bin");

/// A guest image's manifest, for the kernel `k` and the initrd `i`.
fn manifest(kernel: &Value) -> String {
    let file = |content: &[u8]| json!({"sha256": Sha256Digest::of(content).to_string()});
    json!({
        "schema": 1,
        "cmdline": "quiet",
        "files": {"vmlinuz": file(b"k"), "initrd.img": file(b"i")},
        "kernel": kernel,
    })
    .to_string()
}

/// A guest that booted the image of [`manifest`] with one processor.
fn booted() -> Scene {
    let image = GuestImage::parse_manifest(manifest(&json!({})).as_bytes()).unwrap();
    let launch = Launch {
        firmware: &Firmware::parse(FIRMWARE).unwrap(),
        kernel: Some(&image.hashes()),
        signature: VcpuModel::Epyc.signature(),
        features: SevFeatures::SNP,
        vmm: Vmm::Qemu,
    };
    let digest = launch.digest(VcpuCount::new(1).unwrap()).unwrap();
    let mut scene = Scene::genoa();
    scene.put(MEASUREMENT, digest.as_bytes());
    scene
}

#[test]
fn a_verdict_says_whether_the_kernel_that_booted_has_the_guard() {
    let files = Files::of(booted());
    fs::create_dir(files.folder.path().join("image")).unwrap();
    files.write("image/vmlinuz", b"k");
    files.write("image/initrd.img", b"i");
    files.write("firmware", FIRMWARE);
    let endorsed = [
        "--certificates",
        "both.der",
        "--revocation-list",
        "list.der",
    ];
    let launch = ["--guest-image", "image", "--firmware", "firmware"];
    let judged = |kernel: &Value, vcpus: &str| {
        files.write("image/manifest.json", manifest(kernel).as_bytes());
        let arguments = [&endorsed[..], &launch, &["--vcpus", vcpus]].concat();
        let text = files.verify(&arguments);
        let json = files.verify(&[&["--json"], &arguments[..]].concat());
        assert_eq!(text.status, json.status);
        let shown: Value = serde_json::from_slice(&json.stdout).unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        let (_, said) = text.split_once("guard of the guest's kernel: ").unwrap();
        let word = said.split(',').next().unwrap();
        assert_eq!(shown["kernel_guard"], word, "{text}");
        (json.status.code().unwrap(), word.to_owned())
    };
    let is = |code: i32, word: &str| (code, word.to_owned());
    assert_eq!(judged(&json!({"guard": true}), "1"), is(0, "present"));
    assert_eq!(judged(&json!({"guard": false}), "1"), is(0, "absent"));
    assert_eq!(judged(&json!({}), "1"), is(0, "absent"));
    // Of a guest that is not the image's, the image's manifest says nothing.
    assert_eq!(judged(&json!({"guard": true}), "2"), is(1, "unknown"));
}

#[test]
fn files_that_hold_no_certificate_or_list_are_named() {
    let files = Files::new();
    for (option, name) in [
        ("--certificates", "empty"),
        ("--certificates", "list.der"),
        ("--certificates", "references.json"),
        ("--certificates", "none"),
        ("--revocation-list", "empty"),
        ("--revocation-list", "leaf.der"),
        ("--revocation-list", "issuer.pem"),
        ("--revocation-list", "none"),
    ] {
        let output = files.verify(&[option, name]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{option} {name}: {errors}");
        assert!(errors.contains(name), "{option} {name}: {errors}");
    }
}

/// What Azure's certificate service answers to a node, for a real report of one.
#[test]
fn the_answer_of_azures_certificate_service_is_taken() {
    let owner = Owner::with(b"");
    let mut accepted = references(22);
    accepted["identities"] = json!({"measurements": [hex::encode(&owner.report[0x90..0xC0])]});
    let given = |name: &str, content: &[u8]| {
        fs::write(owner.path(name), content).unwrap();
        owner.verify(&accepted, &["--certificates", name])
    };
    let answer = fs::read(vector("uvm_host_amd_certificate.json")).unwrap();
    assert_eq!(outcome(&given("answer.json", &answer)), (0, Vec::new()));
    let encoded = STANDARD.encode(&answer) + "\n";
    assert_eq!(
        outcome(&given("answer.b64", encoded.as_bytes())),
        (0, Vec::new())
    );
    let chain = fs::read(vector("uvm_host_amd_certificate.pem")).unwrap();
    assert_eq!(outcome(&given("chain.pem", &chain)), (0, Vec::new()));

    // Another chip's, at the same TCB.
    let theirs = fs::read(vector("context.host-amd-cert-base64")).unwrap();
    let (code, refused) = outcome(&given("theirs.b64", &theirs));
    assert_eq!(code, 1);
    assert!(refused.contains(&"signature".to_owned()), "{refused:?}");

    // Another TCB is said, and does no harm where the certificate is right.
    let mut behind: Value = serde_json::from_slice(&answer).unwrap();
    behind["tcbm"] = "7208000000000003".into();
    let output = given("behind.json", behind.to_string().as_bytes());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("0300000000000872"), "{errors}");
    assert_eq!(outcome(&output), (0, Vec::new()));

    behind["vcekCert"] = "no certificate".into();
    let output = given("broken.json", behind.to_string().as_bytes());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("broken.json"), "{errors}");
}

/// The JSON on standard output, which every exit code has, and its code.
fn without_verdict(output: &Output) -> (i32, String) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let printed: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {:?}, {errors}", output.status));
    assert_eq!(printed["accepted"], false);
    assert_eq!(printed["checks"], json!([]));
    assert_eq!(printed["log"], json!([]));
    let code = output.status.code().unwrap();
    assert_eq!(printed["error"]["exit_code"], code);
    (
        code,
        printed["error"]["message"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn json_is_printed_whatever_the_exit_code() {
    let files = Files::new();
    let endorsed = [
        "--certificates",
        "both.der",
        "--revocation-list",
        "list.der",
    ];
    assert_eq!(files.outcome(&endorsed).0, 0);
    assert_eq!(files.outcome(&[]).0, 1);

    for (wrong, named) in [
        (&["--vcpu-type", "none"][..], "none"),
        (&["--nonce", "00"], "--report-data"),
        (&["--nobody-knows-this"], "--nobody-knows-this"),
    ] {
        let arguments = [&["--json"], wrong].concat();
        let (code, message) = without_verdict(&files.verify(&arguments));
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(named), "{message}");
    }
    for (wrong, named) in [
        (["--certificates", "none"], "none"),
        (["--workload", "references.json"], "references.json"),
        (["--workload", "empty"], "empty"),
    ] {
        let arguments = [&["--json"], &wrong[..]].concat();
        let (code, message) = without_verdict(&files.verify(&arguments));
        assert_eq!(code, 3, "{message}");
        assert!(message.contains(named), "{message}");
    }
    fs::remove_file(files.folder.path().join("evidence.json")).unwrap();
    let (code, message) = without_verdict(&files.verify(&["--json"]));
    assert_eq!(code, 3, "{message}");
    let silent = files.verify(&["--nobody-knows-this"]);
    assert_eq!(silent.status.code(), Some(2));
    assert!(silent.stdout.is_empty(), "JSON is for those who ask for it");
}

#[test]
fn malformed_evidence_has_an_exit_code_of_its_own() {
    let files = Files::new();
    let whole = fs::read(files.folder.path().join("evidence.json")).unwrap();
    let mut cut: Value = serde_json::from_slice(&whole).unwrap();
    cut["attestation_report"]["measurement"] = json!([1, 2, 3]);
    let cut = cut.to_string();
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let long = vec![b' '; policy_appraisal::MAX_EVIDENCE_LEN + 1];
    for (what, evidence) in [
        ("nothing", &b""[..]),
        ("no json", b"{"),
        ("another document", b"{}"),
        ("half of it", &whole[..whole.len() / 2]),
        ("a field too short", cut.as_bytes()),
        ("of another tee", br#"{"tee":"tdx"}"#),
        ("too deep", deep.as_bytes()),
        ("too long", &long),
    ] {
        files.write("evidence.json", evidence);
        let (code, message) = without_verdict(&files.verify(&["--json"]));
        assert_eq!(code, 4, "{what}: {message}");
        assert!(message.contains("evidence.json"), "{what}: {message}");
    }
    files.write(
        "evidence.json",
        "{\"tee\":\"snp\",\"\u{1b}[2J\":1}".as_bytes(),
    );
    let output = files.verify(&[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        !output.stderr.contains(&0x1B),
        "nothing of a stranger moves the cursor"
    );
}
