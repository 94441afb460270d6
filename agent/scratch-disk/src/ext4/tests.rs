//! Claims about the format, judged by the tools that know it best.

use std::{fs::File, os::unix::fs::FileExt, path::Path, process::Command};

use super::*;

const MIB: u64 = 1 << 20;
const IDENTITY: Identity = Identity {
    uuid: *b"0123456789abcdef",
    hash_seed: *b"fedcba9876543210",
    made: 1_700_000_000,
};

fn image(folder: &Path, bytes: u64) -> std::path::PathBuf {
    let path = folder.join("image");
    let file = File::create(&path).unwrap();
    file.set_len(bytes).unwrap();
    // What was there before must not matter.
    let old = vec![0xa5; usize::try_from(bytes.min(8 * MIB)).unwrap()];
    file.write_all_at(&old, 0).unwrap();
    for write in format(bytes, &IDENTITY).unwrap() {
        assert_eq!(write.offset % BLOCK_BYTES as u64, 0);
        assert_eq!(write.bytes.len() % BLOCK_BYTES, 0);
        file.write_all_at(&write.bytes, write.offset).unwrap();
    }
    path
}

/// The tool's output, or `None` with a word where it is missing.
fn tool(name: &str, arguments: &[&str], image: &Path) -> Option<(bool, String)> {
    let output = Command::new(name).args(arguments).arg(image).output();
    match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            Some((output.status.success(), text))
        }
        Err(error) => {
            eprintln!("skipped: {name}: {error}");
            None
        }
    }
}

const SIZES: [u64; 12] = [
    16 * MIB,
    16 * MIB + 4097,
    100 * MIB,
    128 * MIB,
    128 * MIB + 4096,
    130 * MIB,
    140 * MIB,
    1024 * MIB,
    10_240 * MIB,
    10_239 * MIB + 12_345,
    1 << 40,
    5 << 40,
];

#[test]
fn e2fsck_finds_nothing_to_repair_at_any_size() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in SIZES {
        let image = image(folder.path(), bytes);
        let Some((clean, text)) = tool("e2fsck", &["-f", "-n"], &image) else {
            return;
        };
        assert!(clean && !text.contains("WARNING"), "{bytes}: {text}");
    }
}

#[test]
fn a_broken_file_system_is_not_clean() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 64 * MIB);
    let file = File::options().write(true).open(&image).unwrap();
    // A bit of the first group's descriptor.
    file.write_all_at(&[0x55], 4096 + 0x0c).unwrap();
    if let Some((clean, text)) = tool("e2fsck", &["-f", "-n"], &image) {
        assert!(!clean, "{text}");
    }
}

#[test]
fn dumpe2fs_reads_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 1024 * MIB);
    let Some((read, text)) = tool("dumpe2fs", &["-h"], &image) else {
        return;
    };
    assert!(read, "{text}");
    for (name, value) in [
        ("Filesystem volume name:", "scratch"),
        ("Filesystem state:", "clean"),
        ("Block count:", "262144"),
        ("Reserved block count:", "0"),
        ("Inode count:", "32768"),
        ("Inode size:", "4096"),
        ("Project quota inode:", "12"),
        ("Errors behavior:", "Remount read-only"),
        ("Checksum type:", "crc32c"),
    ] {
        let line = text.lines().find(|line| line.starts_with(name));
        let found = line.and_then(|line| line.strip_prefix(name)).map(str::trim);
        assert_eq!(found, Some(value), "{name} in {text}");
    }
    for feature in ["metadata_csum", "quota", "project", "extent"] {
        assert!(text.contains(feature), "{feature} in {text}");
    }
    assert!(!text.contains("has_journal"), "{text}");
}

#[test]
fn writes_are_few_whatever_the_size() {
    let written = |bytes| -> usize {
        let writes = format(bytes, &IDENTITY).unwrap();
        writes.iter().map(|write| write.bytes.len()).sum()
    };
    assert!(written(10_240 * MIB) < 128 << 10);
    assert!(written(1 << 40) < 1 << 20);
    assert!(written(u64::MAX) < 4 << 20);
}

#[test]
fn no_write_leaves_the_disk() {
    for bytes in SIZES {
        for write in format(bytes, &IDENTITY).unwrap() {
            assert!(write.offset + write.bytes.len() as u64 <= bytes, "{bytes}");
        }
    }
}

#[test]
fn a_disk_that_is_too_small_is_refused() {
    for bytes in [0, 1, 4096, 16 * MIB - 1] {
        assert_eq!(format(bytes, &IDENTITY), Err(TooSmall { bytes }));
    }
}
