//! The same inputs give the same bytes, through the command as its users run it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::{Engine, prelude::BASE64_STANDARD};

mod elf;

const RELEASE: &str = "6.12-test";
const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const OTHER_CA: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";
const MODULES: [(&str, &str); 8] = [
    ("net/vsock", ""),
    ("net/vmw_vsock_virtio_transport_common", "vsock"),
    (
        "net/vmw_vsock_virtio_transport",
        "vmw_vsock_virtio_transport_common",
    ),
    ("drivers/virtio_net", ""),
    ("drivers/virtio_blk", ""),
    ("fs/overlay", ""),
    ("fs/erofs", "libcrc32c"),
    ("lib/libcrc32c", ""),
];

/// Inputs in a directory of their own.
struct Inputs {
    root: tempfile::TempDir,
}

impl Inputs {
    /// Writes the inputs; `reversed` in another order, with other times and modes.
    fn new(reversed: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut files = vec![
            ("vmlinuz".to_owned(), bz_image()),
            (
                "agent".to_owned(),
                fs::read(std::env::current_exe().unwrap()).unwrap(),
            ),
            ("ca.pem".to_owned(), CA.as_bytes().to_vec()),
            ("other.pem".to_owned(), OTHER_CA.as_bytes().to_vec()),
            (
                "lib/modules.builtin".to_owned(),
                b"kernel/net/af_packet.ko\n".to_vec(),
            ),
        ];
        for (name, depends) in MODULES {
            let path = format!("lib/kernel/{name}.ko");
            files.push((path, elf::module(depends, RELEASE)));
        }
        if reversed {
            files.reverse();
        }
        let inputs = Self { root };
        for (name, content) in files {
            inputs.write(&name, &content, reversed);
        }
        inputs
    }

    fn write(&self, name: &str, content: &[u8], old: bool) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if old {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn flags(&self, cas: [&str; 2]) -> Vec<String> {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let mut flags = Vec::new();
        for (flag, name) in [
            ("--agent", "agent"),
            ("--kernel", "vmlinuz"),
            ("--modules", "lib"),
            ("--ca-bundle", cas[0]),
            ("--ca", cas[1]),
        ] {
            flags.extend([flag.to_owned(), path(name)]);
        }
        flags
    }

    fn build(&self, umask: &str, cas: [&str; 2]) -> PathBuf {
        let output = self.path("images");
        let mut flags = self.flags(cas);
        flags.extend(["--output".to_owned(), output.to_str().unwrap().to_owned()]);
        let script = format!("umask {umask}; exec \"$0\" build \"$@\"");
        let built = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_kata-cc-image")])
            .args(flags)
            .output()
            .unwrap();
        assert!(built.status.success(), "{built:?}");
        output.join("default")
    }
}

fn bz_image() -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    let version = format!("{RELEASE} (made up)\0");
    image[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    image
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kata-cc-image"))
        .args(arguments)
        .output()
        .unwrap()
}

fn files(image: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(image)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            (name, mode, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn place_order_times_and_umask_do_not_reach_the_image() {
    let first = Inputs::new(false);
    let second = Inputs::new(true);
    let one = files(&first.build("022", ["ca.pem", "other.pem"]));
    let two = files(&second.build("077", ["other.pem", "ca.pem"]));
    let names: Vec<&str> = one.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["initrd.img", "manifest.json", "vmlinuz"]);
    assert!(one == two, "two builds differ");
}

#[test]
fn building_again_replaces_the_image_and_leaves_nothing_else() {
    let inputs = Inputs::new(false);
    let image = inputs.build("022", ["ca.pem", "ca.pem"]);
    fs::write(image.join("stale"), "x").unwrap();
    inputs.build("022", ["ca.pem", "other.pem"]);
    assert_eq!(files(&image).len(), 3);
    assert_eq!(fs::read_dir(inputs.path("images")).unwrap().count(), 1);
}

#[test]
fn show_prints_the_image_and_finds_a_changed_byte() {
    let inputs = Inputs::new(false);
    let image = inputs.build("022", ["ca.pem", "other.pem"]);
    let directory = image.to_str().unwrap();
    let shown = command(&["show", directory]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("libcrc32c erofs"), "{text}");
    let json = command(&["show", "--json", directory]);
    assert_eq!(json.stdout, fs::read(image.join("manifest.json")).unwrap());
    let initrd = fs::File::options()
        .write(true)
        .open(image.join("initrd.img"))
        .unwrap();
    initrd.write_at(b"x", 100).unwrap();
    let refused = command(&["show", directory]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("initrd.img"), "{refused:?}");
    assert_eq!(stderr(&refused).lines().count(), 1);
}

#[test]
fn verify_accepts_the_inputs_and_refuses_others() {
    let inputs = Inputs::new(false);
    let image = inputs.build("022", ["ca.pem", "other.pem"]);
    let verify = |flags: Vec<String>| {
        Command::new(env!("CARGO_BIN_EXE_kata-cc-image"))
            .arg("verify")
            .arg(&image)
            .args(flags)
            .output()
            .unwrap()
    };
    let same = verify(inputs.flags(["ca.pem", "other.pem"]));
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    let other = verify(inputs.flags(["ca.pem", "ca.pem"]));
    assert_eq!(other.status.code(), Some(3));
    assert!(stderr(&other).contains("initrd.img, manifest.json"));
}

#[test]
fn wrong_inputs_are_one_sentence_that_names_them() {
    let cases: [(&str, &[u8], &str); 4] = [
        ("agent", b"#!/bin/sh", "is not a 64-bit ELF executable"),
        ("vmlinuz", b"text", "is not an x86 kernel in bzImage form"),
        ("other.pem", b"nothing", "holds no PEM certificate"),
        ("lib/kernel/fs/erofs.ko", b"text", "is not an ELF object"),
    ];
    for (name, content, sentence) in cases {
        let inputs = Inputs::new(false);
        let file = name.rsplit('/').next().unwrap();
        inputs.write(name, content, false);
        let mut flags = vec!["build".to_owned(), "--output".to_owned()];
        flags.push(inputs.path("images").to_str().unwrap().to_owned());
        flags.extend(inputs.flags(["ca.pem", "other.pem"]));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let refused = command(&flags);
        assert_eq!(refused.status.code(), Some(1));
        let message = stderr(&refused);
        assert!(
            message.contains(sentence) && message.contains(file),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!inputs.path("images").exists());
    }
    let missing = command(&["build", "--agent", "/nonesuch", "--output", "/nonesuch"]);
    assert!(stderr(&missing).contains("cannot read /nonesuch"));
}

const FIRMWARE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../measurement/tests/vectors/ovmf_AmdSev_suffix.bin"
);

#[test]
fn measure_prints_each_value() {
    let inputs = Inputs::new(false);
    let image = inputs.build("022", ["ca.pem", "other.pem"]);
    let directory = image.to_str().unwrap();
    let measure = |flags: &[&str]| {
        let flags = [&["measure", directory, "--firmware", FIRMWARE], flags].concat();
        command(&flags)
    };
    let printed = measure(&["--vcpus", "1-2", "--vcpu-type", "EPYC-Milan-v2"]);
    let values: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let rows = values["launch_digests"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let known = &values["reference_values"]["snp_launch_measurement"];
    assert!(
        known
            .as_array()
            .unwrap()
            .contains(&rows[1]["launch_digest"])
    );
    let rvps = measure(&["--rvps"]);
    let message: serde_json::Value = serde_json::from_slice(&rvps.stdout).unwrap();
    assert_eq!(message["type"], "sample");
}

#[test]
fn measure_refuses_a_changed_image_and_firmware_that_is_none() {
    let inputs = Inputs::new(false);
    let image = inputs.build("022", ["ca.pem", "other.pem"]);
    let directory = image.to_str().unwrap();
    let kernel = image.join("vmlinuz");
    let refused = command(&["measure", directory, "--firmware", kernel.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("firmware has whole pages"),
        "{refused:?}"
    );
    fs::write(kernel, "another").unwrap();
    let refused = command(&["measure", directory, "--firmware", FIRMWARE]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("vmlinuz"), "{refused:?}");
}

#[test]
fn an_igvm_file_is_measured_as_the_image_that_it_starts() {
    let inputs = Inputs::new(false);
    let image = inputs.build("022", ["ca.pem", "other.pem"]);
    let directory = image.to_str().unwrap();
    let written = inputs.path("image.igvm");
    let written = written.to_str().unwrap();
    let firmware = ["--firmware", FIRMWARE];
    let igvm = |flags: &[&str]| {
        let base = ["igvm", directory, "--output", written];
        command(&[&base, &firmware[..], flags].concat())
    };
    let made = igvm(&["--vcpus", "2", "--vcpu-type", "EPYC-Milan"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let first = fs::read(written).unwrap();
    let file = measured(&command(&["measure", written]));
    let flags = [
        "measure",
        directory,
        "--vcpus",
        "2",
        "--vcpu-type",
        "EPYC-Milan",
    ];
    let whole = measured(&command(&[&flags, &firmware[..]].concat()));
    let digest = &whole["launch_digests"][0]["launch_digest"];
    assert_eq!(&file["launch_digest"], digest);
    assert_eq!(String::from_utf8_lossy(&made.stdout).trim(), digest);
    assert_eq!(file["vcpus"], 2);
    assert_eq!(file["policy"], "0x30000");
    assert_eq!(file["id_block"], serde_json::Value::Null);
    assert_eq!(file["reference_values"], whole["reference_values"]);
    let other = measured(&command(&["measure", written, "--loader", "file-order"]));
    assert_ne!(&other["launch_digest"], digest);
    // The same again gives the same bytes; a changed image gives none.
    igvm(&["--vcpus", "2", "--vcpu-type", "EPYC-Milan"]);
    assert!(fs::read(written).unwrap() == first);
    fs::write(image.join("initrd.img"), "another").unwrap();
    assert_eq!(igvm(&[]).status.code(), Some(3));
}

#[test]
fn an_id_block_is_signed_shown_and_checked() {
    let inputs = Inputs::new(false);
    let image = inputs.build("022", ["ca.pem", "other.pem"]);
    let written = inputs.path("image.igvm");
    let written = written.to_str().unwrap();
    inputs.write("id.pem", id_key().as_bytes(), false);
    let key = inputs.path("id.pem");
    let igvm = |flags: &[&str]| {
        let base = ["igvm", image.to_str().unwrap(), "--output", written];
        command(&[&base, &["--firmware", FIRMWARE][..], flags].concat())
    };
    let identity = [
        "--id-key",
        key.to_str().unwrap(),
        "--family-id",
        "000102030405060708090a0b0c0d0e0f",
        "--guest-svn",
        "7",
    ];
    let made = igvm(&identity);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let block = &measured(&command(&["measure", written]))["id_block"];
    assert_eq!(block["family_id"], identity[3]);
    assert_eq!(block["guest_svn"], 7);
    assert_eq!(block["author_key_digest"], "0".repeat(96));
    // Under a loader with another digest, the processor would refuse the block.
    let refused = command(&["measure", written, "--loader", "file-order"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("the ID block is for the launch digest"));
    let alone = igvm(&["--family-id", identity[3]]);
    assert_eq!(alone.status.code(), Some(2));
    let mut damaged = fs::read(written).unwrap();
    damaged[40] ^= 1;
    fs::write(written, damaged).unwrap();
    let refused = command(&["measure", written]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("image.igvm: has the checksum"));
}

fn id_key() -> String {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    let body = BASE64_STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

fn measured(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
