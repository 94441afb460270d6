//! What the guest finds when it starts.
//!
//! | path | content |
//! |---|---|
//! | `/init` | the agent |
//! | `/lib/modules/<release>/…/*.ko` | modules, uncompressed |
//! | `/lib/modules/load-order` | one absolute path a line: load all at boot, in this order |
//! | `/lib/modules/on-demand` | `feature: path path …` a line: load in this order when the feature is asked for; no paths means that the kernel has it built in; a feature without a line is not there |
//! | `/etc/ssl/certs/ca-certificates.crt` | certificate authorities |
//! | `/etc/{passwd,group,hosts,nsswitch.conf}` | the least that libraries ask for |
//! | `/dev/console` | so that the kernel gives `/init` its standard streams |
//! | `/proc /sys /dev /run /tmp /root /var` | empty, to be mounted over |

use std::io::{self, Write};

use crate::{
    cpio::{Archive, ArchiveError},
    modules::Selection,
};

const DIRECTORIES: [(&str, u32); 9] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("lib", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];

const FILES: [(&str, &str); 4] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];

/// From level 17 on a build takes ten seconds; up to 19 the window (8 MiB) is one that the
/// kernel's decoder always accepts.
const ZSTD_LEVEL: i32 = 9;

/// How the initrd is stored.
///
/// zstd is the default: with our kernel an emulated start takes 1.65 s of the processor until the
/// agent answers, and 1.45 s with lz4 or a plain archive; but each byte that is stored is held by
/// QEMU and once more by the guest, and a pod's overhead counts both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// As it is: nothing to inflate, most to store, load and measure.
    None,
    /// lz4 in the form that Linux reads, which is that of `lz4 -l`.
    Lz4,
    /// zstd level 9, one thread: a twentieth of the time of level 19 for a tenth more bytes.
    Zstd,
}

impl Compression {
    /// The name used in the manifest and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The archive of a guest with this agent, these modules and certificates.
///
/// # Errors
///
/// When a module's path cannot be part of an archive.
pub fn archive(
    agent: &[u8],
    release: &str,
    selection: &Selection,
    certificates: Vec<u8>,
) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Archive::default();
    for (path, mode) in DIRECTORIES {
        archive.directory(path, mode)?;
    }
    for (path, content) in FILES {
        archive.file(path, 0o644, content.as_bytes().to_vec())?;
    }
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.file("init", 0o755, agent.to_vec())?;
    archive.file("etc/ssl/certs/ca-certificates.crt", 0o644, certificates)?;
    for (path, content) in &selection.modules {
        let path = format!("lib/modules/{release}/{path}");
        archive.file(&path, 0o644, content.clone())?;
    }
    let (load_order, on_demand) = lists(release, selection);
    archive.file("lib/modules/load-order", 0o644, load_order.into_bytes())?;
    archive.file("lib/modules/on-demand", 0o644, on_demand.into_bytes())?;
    Ok(archive.into_bytes())
}

fn lists(release: &str, selection: &Selection) -> (String, String) {
    let absolute = |path: &String| format!("/lib/modules/{release}/{path}");
    let mut load_order = String::new();
    for path in &selection.boot {
        load_order.push_str(&absolute(path));
        load_order.push('\n');
    }
    let mut on_demand = String::new();
    for (feature, paths) in &selection.on_demand {
        on_demand.push_str(feature);
        on_demand.push(':');
        for path in paths {
            on_demand.push(' ');
            on_demand.push_str(&absolute(path));
        }
        on_demand.push('\n');
    }
    (load_order, on_demand)
}

/// The initrd as it is stored.
///
/// # Errors
///
/// When the compressor fails.
pub fn compress(archive: Vec<u8>, compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(archive),
        Compression::Lz4 => Ok(lz4(&archive)),
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            encoder.set_pledged_src_size(Some(archive.len() as u64))?;
            encoder.include_checksum(true)?;
            encoder.write_all(&archive)?;
            encoder.finish()
        }
    }
}

/// LZ4's legacy frame (`doc/lz4_Frame_format.md` of LZ4, "Legacy frame"): a magic number, then
/// blocks of 8 MiB, each after its compressed length.
fn lz4(archive: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x184c_2102;
    const BLOCK_BYTES: usize = 8 << 20;
    let mut stored = MAGIC.to_le_bytes().to_vec();
    for block in archive.chunks(BLOCK_BYTES) {
        let compressed = lz4_flex::block::compress(block);
        let length = u32::try_from(compressed.len()).expect("a block grows by a 255th at most");
        stored.extend(length.to_le_bytes());
        stored.extend(compressed);
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> Selection {
        let mut selection = Selection::default();
        selection.modules.insert("kernel/a.ko".into(), vec![1]);
        selection.boot.push("kernel/a.ko".into());
        selection.on_demand.insert("ext4".into(), Vec::new());
        let paths = vec!["kernel/b.ko".into(), "kernel/c.ko".into()];
        selection.on_demand.insert("dm-crypt".into(), paths);
        selection
    }

    #[test]
    fn lists_name_absolute_paths() {
        let (load_order, on_demand) = lists("6.12", &selection());
        assert_eq!(load_order, "/lib/modules/6.12/kernel/a.ko\n");
        let expected =
            "dm-crypt: /lib/modules/6.12/kernel/b.ko /lib/modules/6.12/kernel/c.ko\next4:\n";
        assert_eq!(on_demand, expected);
    }

    #[test]
    fn compression_is_reversible_and_repeatable() {
        let bytes = archive(b"agent", "6.12", &selection(), Vec::new()).unwrap();
        let one = compress(bytes.clone(), Compression::Zstd).unwrap();
        let two = compress(bytes.clone(), Compression::Zstd).unwrap();
        assert_eq!(one, two);
        assert_eq!(zstd::decode_all(one.as_slice()).unwrap(), bytes);
        assert_eq!(compress(bytes.clone(), Compression::None).unwrap(), bytes);
        let one = compress(bytes.clone(), Compression::Lz4).unwrap();
        assert_eq!(one, compress(bytes.clone(), Compression::Lz4).unwrap());
        assert_eq!(one[..4], [0x02, 0x21, 0x4c, 0x18]);
        let length = u32::from_le_bytes(one[4..8].try_into().unwrap()) as usize;
        assert_eq!(one.len(), 8 + length, "one block");
        let plain = lz4_flex::block::decompress(&one[8..], bytes.len()).unwrap();
        assert_eq!(plain, bytes);
    }
}
