//! The installed guest image: what boots.
//!
//! A directory with `manifest.json`, kernel and initrd. The shim takes the kernel
//! command line from the manifest and passes all of it on unchanged; it checks that
//! the files are there and as long as the manifest says, so that a half-copied image
//! fails with a sentence instead of a silent guest. Digests are not compared here:
//! whoever trusts the guest measures it, and does not trust the shim.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use shim_configuration::{Qemu, Tee};
use thiserror::Error;

const MANIFEST: &str = "manifest.json";
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";
const SCHEMA: u32 = 1;

/// What a VM boots.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GuestImage {
    /// Kernel image.
    pub(crate) kernel: PathBuf,
    /// Initial root file system with the agent.
    pub(crate) initrd: PathBuf,
    /// Kernel command line.
    pub(crate) cmdline: String,
    /// Whether the kernel has the guard.
    guard: bool,
}

/// Why there is nothing to boot.
#[derive(Debug, Error)]
pub(crate) enum GuestImageError {
    /// A file is missing or cannot be read.
    #[error(
        "cannot read {path} of the guest image: install one there, or correct guest_image in [hypervisor.qemu]"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("{path} is malformed: install the guest image again")]
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A later builder wrote it.
    #[error(
        "{path} has schema {found}, this shim knows {SCHEMA}: install shim and guest image of one version"
    )]
    Schema {
        /// The manifest.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// The manifest and the directory disagree.
    #[error(
        "{path} of the guest image has {found} bytes, its manifest says {expected}: install the guest image again"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length in the manifest; 0 if it is not in it.
        expected: u64,
    },
    /// The host's ACPI tables could change the guest's memory.
    #[error(
        "the kernel of the guest image in {path} has no guard against the host's ACPI tables: build the image with our own kernel, or set allow_kernel_without_guard in [hypervisor.qemu]"
    )]
    NoGuard {
        /// The image's directory.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct Manifest {
    schema: u32,
    cmdline: String,
    files: BTreeMap<String, FileDigest>,
    #[serde(default)]
    kernel: Kernel,
}

#[derive(Default, Deserialize)]
struct Kernel {
    #[serde(default)]
    guard: bool,
}

#[derive(Deserialize)]
struct FileDigest {
    bytes: u64,
}

impl GuestImage {
    /// Reads the manifest in `directory` and looks for its files.
    ///
    /// # Errors
    ///
    /// [`GuestImageError`] names the file.
    pub(crate) fn open(directory: &Path) -> Result<Self, GuestImageError> {
        let path = directory.join(MANIFEST);
        let text = fs::read(&path).map_err(|source| GuestImageError::Read {
            path: path.clone(),
            source,
        })?;
        let manifest: Manifest =
            agent_protocol::documents::parse_json(&text).map_err(|source| {
                GuestImageError::Malformed {
                    path: path.clone(),
                    source,
                }
            })?;
        if manifest.schema != SCHEMA {
            return Err(GuestImageError::Schema {
                path,
                found: manifest.schema,
            });
        }
        let file = |name: &str| {
            let path = directory.join(name);
            let expected = manifest.files.get(name).map_or(0, |file| file.bytes);
            let found = fs::metadata(&path).map_err(|source| GuestImageError::Read {
                path: path.clone(),
                source,
            })?;
            if found.len() == expected {
                Ok(path)
            } else {
                Err(GuestImageError::Size {
                    path,
                    found: found.len(),
                    expected,
                })
            }
        };
        Ok(Self {
            kernel: file(KERNEL)?,
            initrd: file(INITRD)?,
            cmdline: manifest.cmdline,
            guard: manifest.kernel.guard,
        })
    }

    /// Refuses a kernel that a TEE would not protect from the host, unless the node's
    /// configuration allows it by name.
    ///
    /// This helps against mistakes of an honest node; the guest's owner learns from the
    /// measurement which kernel it was.
    ///
    /// # Errors
    ///
    /// [`GuestImageError::NoGuard`].
    pub(crate) fn fit_for(&self, qemu: &Qemu) -> Result<(), GuestImageError> {
        if qemu.tee != Tee::Snp || self.guard || qemu.allow_kernel_without_guard {
            return Ok(());
        }
        let path = qemu.guest_image.clone();
        Err(GuestImageError::NoGuard { path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(schema: u32, kernel_bytes: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KERNEL), "kernel").unwrap();
        fs::write(folder.path().join(INITRD), "initrd!").unwrap();
        let manifest = format!(
            r#"{{"schema": {schema}, "cmdline": "quiet", "files": {{
                "vmlinuz": {{"sha256": "", "bytes": {kernel_bytes}}},
                "initrd.img": {{"sha256": "", "bytes": 7}}
            }}, "more": 1}}"#
        );
        fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        folder
    }

    #[test]
    fn an_installed_image_opens() {
        let folder = image(1, 6);
        let found = GuestImage::open(folder.path()).unwrap();
        assert_eq!(found.cmdline, "quiet");
        assert_eq!(found.kernel, folder.path().join(KERNEL));
    }

    #[test]
    fn snp_takes_a_kernel_without_the_guard_only_if_that_is_allowed_by_name() {
        let folder = image(1, 6);
        let mut image = GuestImage::open(folder.path()).unwrap();
        let qemu = |tee, allow_kernel_without_guard| Qemu {
            tee,
            allow_kernel_without_guard,
            ..Qemu::default()
        };
        let refused = image.fit_for(&qemu(Tee::Snp, false)).unwrap_err();
        assert!(refused.to_string().contains("allow_kernel_without_guard"));
        image.fit_for(&qemu(Tee::Snp, true)).unwrap();
        image.fit_for(&qemu(Tee::None, false)).unwrap();
        image.guard = true;
        image.fit_for(&qemu(Tee::Snp, false)).unwrap();
    }

    #[test]
    fn the_guard_is_what_the_manifest_says() {
        let folder = image(1, 6);
        assert!(!GuestImage::open(folder.path()).unwrap().guard);
        let path = folder.path().join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("\"more\": 1", "\"kernel\": {\"guard\": true}");
        fs::write(path, text).unwrap();
        assert!(GuestImage::open(folder.path()).unwrap().guard);
    }

    #[test]
    fn a_broken_image_is_named() {
        let text =
            |folder: &tempfile::TempDir| GuestImage::open(folder.path()).unwrap_err().to_string();
        assert!(text(&image(1, 9)).contains("vmlinuz"));
        assert!(text(&image(2, 6)).contains("schema 2"));
        let folder = image(1, 6);
        fs::remove_file(folder.path().join(INITRD)).unwrap();
        assert!(text(&folder).contains("initrd.img"));
        fs::write(folder.path().join(MANIFEST), "{").unwrap();
        assert!(text(&folder).contains("malformed"));
    }
}
