//! Sparse files in layers that GNU tar packs.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    process::Command,
};

use support::{mounted::*, *};

/// The file's size: mostly holes, at both ends too.
const BYTES: u64 = 64 << 20;

fn packed(options: &[&str]) -> Vec<u8> {
    let directory = directory();
    let file = File::create(directory.path().join("sparse")).unwrap();
    // More parts than fit into a header, so that each notation needs its second place.
    for part in 1..60u64 {
        file.write_all_at(&[part as u8; 5000], part << 20).unwrap();
    }
    file.set_len(BYTES).unwrap();
    let archive = directory.path().join("layer.tar");
    let status = Command::new("tar")
        .args(["--sparse", "--create", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(directory.path())
        .args(options)
        .arg("sparse")
        .status();
    assert!(status.unwrap().success(), "tar {options:?}");
    fs::read(archive).unwrap()
}

#[test]
fn sparse_files_are_unpacked_exactly_and_stay_sparse() {
    for options in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let archive = packed(options);
        assert!(archive.len() < 2 << 20, "{options:?} packs no holes");
        let linked = tar().hardlink("again", "sparse").end();
        let mounted = mount(&[archive, linked]);
        assert_eq!(mounted.names(""), ["again", "sparse"], "{options:?}");
        for name in mounted.names("") {
            let content = fs::read(mounted.path(&name)).unwrap();
            assert_eq!(content.len() as u64, BYTES);
            for (place, chunk) in content.chunks(1 << 20).enumerate() {
                let expected = if (1..60).contains(&place) {
                    place as u8
                } else {
                    0
                };
                assert!(
                    chunk[..5000].iter().all(|byte| *byte == expected),
                    "{place}"
                );
                assert!(chunk[5000..].iter().all(|byte| *byte == 0), "{place}");
            }
            let taken = fs::metadata(mounted.path(&name)).unwrap().blocks() * 512;
            assert!(taken < 8 << 20, "{options:?}: {taken} bytes on disk");
        }
    }
}

#[test]
fn a_sparse_file_whose_map_lies_is_refused_by_name() {
    let records = [("GNU.sparse.size", "100"), ("GNU.sparse.map", "0,5,3,1")];
    let Err(sentence) = try_mount(&[tar().pax(&records).file("f", b"abcdef").end()]) else {
        panic!("it was not refused")
    };
    assert!(sentence.contains("sparse file"), "{sentence}");
}
