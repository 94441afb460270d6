//! `kata-cc measure` of an IGVM file, as its owner runs it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use guest_image_measurement::{
    KernelHashes, SevFeatures, Sha256Digest, VcpuCount, VcpuModel,
    igvm::{Contents, Igvm, Loader, compose},
};

const FIRMWARE: &[u8] =
    include_bytes!("../../../guest-image/measurement/tests/vectors/ovmf_AmdSev_suffix.bin");

fn file() -> Vec<u8> {
    let kernel = KernelHashes::new(Sha256Digest::of(b"kernel"), None, "quiet");
    let contents = Contents {
        firmware: FIRMWARE,
        kernel: &kernel,
        signature: VcpuModel::Epyc.signature(),
        features: SevFeatures::SNP,
        vcpus: VcpuCount::new(3).unwrap(),
        policy: 0x3_0000,
    };
    compose(&contents, None).unwrap()
}

fn measure(file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kata-cc"));
    command
        .arg("measure")
        .arg(file)
        .args(more)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_igvm_file_has_one_digest_under_each_loader_and_another_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guest.igvm");
    let bytes = file();
    fs::write(&path, &bytes).unwrap();
    let parsed = Igvm::parse(&bytes).unwrap();
    let [qemu, ordered] = Loader::ALL.map(|loader| parsed.digest(loader).unwrap().to_string());
    assert_ne!(qemu, ordered);

    let line = stdout(&measure(&path, &[]));
    assert_eq!(line, format!("{qemu}     3 x vCPU, loader qemu\n"));
    let json = stdout(&measure(&path, &["--json", "--loader", "file-order"]));
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let row = serde_json::json!({"vcpus": 3, "loader": "file-order", "launch_digest": ordered});
    assert_eq!(rows, serde_json::json!([row]));

    let explained = measure(&path, &["--explain", &ordered]);
    assert!(stdout(&explained).contains("guest.igvm loaded by file-order"));
    let unknown = measure(&path, &["--explain", &"0".repeat(96)]);
    assert_eq!(unknown.status.code(), Some(3));
}

#[test]
fn a_file_that_is_no_igvm_file_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guest.igvm");
    let mut damaged = file();
    damaged[50] ^= 1;
    for (bytes, sentence) in [
        (damaged, "guest.igvm: has the checksum"),
        (
            b"text".to_vec(),
            "guest.igvm: does not begin with the letters IGVM",
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let refused = measure(&path, &[]);
        assert_eq!(refused.status.code(), Some(1));
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(message.contains(sentence), "{message}");
    }
}
