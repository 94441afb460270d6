//! Whole pulls from a registry on the loopback device to a mounted root filesystem.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
};

use support::*;

fn base() -> Vec<u8> {
    Tar::new()
        .entry("./", b'5', 0o755, "", b"")
        .dir("bin")
        .entry("bin/sh", b'0', 0o4755, "", b"#!shell")
        .symlink("bin/ash", "sh")
        .hardlink("bin/bash", "bin/sh")
        .dir("etc")
        .file("etc/conf", b"old")
        .file("etc/gone", b"x")
        .device("dev-null", b'3', 1, 3)
        .entry("pipe", b'6', 0o600, "", b"")
        .end()
}

#[test]
fn image_of_three_compressions_is_pulled_and_mounted() {
    let top = Tar::new()
        .dir("etc")
        .file("etc/.wh.gone", b"")
        .file("etc/conf", b"new")
        .end();
    let last = Tar::new()
        .dir("opt")
        .entry("opt/big", b'0', 0o600, "", &vec![7; 700_000])
        .end();
    let mut files = Files::default();
    let digest = files.image(&[plain(&base()), gzip(&top), zstd(&last)]);
    let registry = Registry::serving(files);
    let directory = directory();
    let puller = registry.puller(&directory.path().join("store"));

    let image = puller.pull(&registry.reference("x")).unwrap();
    assert_eq!(image.manifest_digest.to_string(), digest);
    assert_eq!(image.config.cmd, ["/bin/sh"]);
    assert_eq!(image.diff_ids.len(), 3);
    assert_eq!(registry.seen().len(), 3 + 2, "n + 2 requests");

    let bundle = directory.path().join("bundle");
    let rootfs = puller.assemble(&image, &bundle).unwrap();
    let root = rootfs.path().to_owned();
    assert_eq!(read(root.join("etc/conf")), "new");
    assert!(!root.join("etc/gone").exists());
    let shell = fs::metadata(root.join("bin/sh")).unwrap();
    assert_eq!(
        (shell.permissions().mode(), shell.mtime(), shell.nlink()),
        (0o104_755, 1_000_000, 2)
    );
    assert_eq!(
        fs::read_link(root.join("bin/ash")).unwrap().to_str(),
        Some("sh")
    );
    assert!(
        fs::metadata(root.join("dev-null"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert!(
        fs::metadata(root.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(fs::metadata(root.join("opt/big")).unwrap().len(), 700_000);
    fs::write(root.join("etc/conf"), "changed").unwrap();

    let other = puller
        .assemble(&image, &directory.path().join("other"))
        .unwrap();
    assert_eq!(
        read(other.path().join("etc/conf")),
        "new",
        "containers share no changes"
    );
    other.unmount().unwrap();
    rootfs.unmount().unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);

    assert_eq!(
        puller
            .pull(&registry.reference("x"))
            .unwrap()
            .manifest_digest,
        image.manifest_digest
    );
    assert_eq!(
        registry.seen().len(),
        3 + 2 + 2,
        "finished layers are not fetched again"
    );
}
