//! Reads a kernel out of a Debian package, without unpacking it to disk.
//!
//! A package is an `ar` archive whose `control.tar.*` and `data.tar.*` hold the description
//! and the files (deb(5)). Only the kernel, its module lists and its modules are kept; modules
//! stay compressed until one is wanted.

use std::io::{self, Read};

use crate::{
    kernel::{Kernel, KernelError, KernelPackage},
    modules::ModuleTree,
};

/// Most that a package's description may hold.
const MAX_CONTROL_BYTES: u64 = 1 << 20;
/// Most that one file of a package may hold; the largest in a kernel package has 12 MiB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// Not an archive, or cut short.
    #[error("is not a whole Debian package")]
    Archive(#[source] io::Error),
    /// A member of the package is missing.
    #[error("has no {0} member")]
    Member(&'static str),
    /// A member is compressed by something else than xz, zstd or gzip.
    #[error("has a member {0:?} whose compression is not known")]
    Compression(String),
    /// One of the files is larger than a kernel package's file can be.
    #[error("has a file {0:?} larger than 256 MiB")]
    TooLarge(String),
    /// The files are not those of a kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The kernel in a `linux-image-…` package.
///
/// # Errors
///
/// When the bytes are not a Debian package, or not one with a kernel and its modules.
pub fn kernel(package: &[u8]) -> Result<Kernel, DebError> {
    let mut archive = ar::Archive::new(package);
    let mut control = None;
    let mut found = Found::default();
    let mut has_files = false;
    while let Some(member) = archive.next_entry() {
        let member = member.map_err(DebError::Archive)?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        if let Some(suffix) = name.strip_prefix("control.tar") {
            control = Some(read_control(plain(suffix, &name, member)?)?);
        } else if let Some(suffix) = name.strip_prefix("data.tar") {
            found.read(plain(suffix, &name, member)?)?;
            has_files = true;
        }
    }
    if !has_files {
        return Err(DebError::Member("data.tar"));
    }
    let control = control.ok_or(DebError::Member("control.tar"))?;
    let package = KernelPackage {
        name: field(&control, "Package").unwrap_or_default(),
        version: field(&control, "Version").unwrap_or_default(),
    };
    Ok(Kernel::new(found.vmlinuz, found.tree, Some(package))?)
}

fn plain<'a, R: Read + 'a>(
    suffix: &str,
    name: &str,
    member: R,
) -> Result<Box<dyn Read + 'a>, DebError> {
    Ok(match suffix {
        "" => Box::new(member),
        ".gz" => Box::new(flate2::read::GzDecoder::new(member)),
        ".xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(member)),
        ".zst" => Box::new(zstd::Decoder::new(member).map_err(DebError::Archive)?),
        _ => return Err(DebError::Compression(name.to_owned())),
    })
}

fn read_control(tar: impl Read) -> Result<String, DebError> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(DebError::Archive)? {
        let entry = entry.map_err(DebError::Archive)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if path.trim_start_matches("./") == "control" {
            let mut text = String::new();
            entry
                .take(MAX_CONTROL_BYTES)
                .read_to_string(&mut text)
                .map_err(DebError::Archive)?;
            return Ok(text);
        }
    }
    Err(DebError::Member("control"))
}

fn field(control: &str, name: &str) -> Option<String> {
    control
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .map(str::to_owned)
}

#[derive(Default)]
struct Found {
    vmlinuz: Vec<u8>,
    tree: ModuleTree,
}

impl Found {
    fn read(&mut self, tar: impl Read) -> Result<(), DebError> {
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().map_err(DebError::Archive)? {
            let mut entry = entry.map_err(DebError::Archive)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").to_owned();
            if !entry.header().entry_type().is_file() || !wanted(&path) {
                continue;
            }
            if entry.size() > MAX_FILE_BYTES {
                return Err(DebError::TooLarge(path));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(DebError::Archive)?;
            self.keep(&path, content);
        }
        Ok(())
    }

    fn keep(&mut self, path: &str, content: Vec<u8>) {
        if path.starts_with("boot/") {
            self.vmlinuz = content;
        } else if let Some((_release, relative)) = module_path(path) {
            self.tree.add(relative, content);
        }
    }
}

fn wanted(path: &str) -> bool {
    path.starts_with("boot/vmlinuz-") || module_path(path).is_some()
}

/// Splits `[usr/]lib/modules/<release>/<relative>`.
fn module_path(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    path.strip_prefix("lib/modules/")?.split_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tarball(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder
                .append_data(&mut header, path, content.as_slice())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn package(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = ar::Builder::new(Vec::new());
        for (name, content) in members {
            let header = ar::Header::new(name.as_bytes().to_vec(), content.len() as u64);
            builder.append(&header, content.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn xz(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = liblzma::read::XzEncoder::new(plain, 1);
        encoder.read_to_end(&mut out).unwrap();
        out
    }

    fn bz_image() -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x305].copy_from_slice(b"6.12 ");
        image
    }

    #[test]
    fn a_kernel_is_read_out_of_a_package_whatever_its_compression() {
        let control = b"Package: linux-image-6.12\nVersion: 6.12-1\n".to_vec();
        let control = tarball(&[("./control", control)]);
        let files = tarball(&[
            ("./boot/vmlinuz-6.12", bz_image()),
            ("./usr/lib/modules/6.12/kernel/a.ko.xz", vec![1]),
            ("./usr/share/doc/readme", vec![2]),
        ]);
        let zstd = |plain: &[u8]| zstd::encode_all(plain, 1).unwrap();
        let cases = [
            package(&[
                ("control.tar", control.clone()),
                ("data.tar", files.clone()),
            ]),
            package(&[
                ("control.tar.xz", xz(&control)),
                ("data.tar.xz", xz(&files)),
            ]),
            package(&[
                ("control.tar.zst", zstd(&control)),
                ("data.tar.zst", zstd(&files)),
            ]),
        ];
        for case in cases {
            let kernel = kernel(&case).unwrap();
            assert_eq!(kernel.release, "6.12");
            assert_eq!(kernel.package.unwrap().version, "6.12-1");
            assert!(!kernel.tree.is_empty());
        }
    }

    #[test]
    fn packages_that_lack_a_part_are_refused() {
        let control = tarball(&[("./control", b"Package: x\n".to_vec())]);
        let empty = package(&[("control.tar", control.clone()), ("data.tar", tarball(&[]))]);
        let refused = kernel(&empty).err().unwrap();
        assert!(matches!(refused, DebError::Kernel(KernelError::Missing)));
        let odd = package(&[("control.tar", control), ("data.tar.bz2", vec![1])]);
        assert!(matches!(kernel(&odd), Err(DebError::Compression(_))));
        let cut = xz(&tarball(&[("./boot/vmlinuz-6.12", bz_image())]));
        let cut = package(&[("data.tar.xz", cut[..cut.len() / 2].to_vec())]);
        assert!(matches!(kernel(&cut), Err(DebError::Archive(_))));
    }

    #[test]
    fn module_paths_are_found_in_both_layouts() {
        let expected = Some(("6.12", "kernel/a.ko.xz"));
        assert_eq!(module_path("lib/modules/6.12/kernel/a.ko.xz"), expected);
        assert_eq!(module_path("usr/lib/modules/6.12/kernel/a.ko.xz"), expected);
        assert_eq!(module_path("usr/share/doc/x"), None);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(kernel(b"hello"), Err(DebError::Archive(_))));
        assert!(matches!(
            kernel(b"!<arch>\n"),
            Err(DebError::Member("data.tar"))
        ));
    }

    #[test]
    fn fields_of_the_description_are_read_by_their_whole_name() {
        let control = "Package: linux\nVersion: 6.12-1\nDepends: x\n";
        assert_eq!(field(control, "Version").as_deref(), Some("6.12-1"));
        assert_eq!(field(control, "Ver"), None);
    }
}
