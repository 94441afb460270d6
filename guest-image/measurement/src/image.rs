//! What of a guest image is measured: its kernel, its initrd and its command line.
//!
//! The manifest that the builder writes beside the files names all three. It proves nothing:
//! whoever measures has the files too and compares them with [`GuestImage::check`], or trusts
//! whom they have the manifest from.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    digest::{ParseDigestError, Sha256Digest},
    kernel_hashes::KernelHashes,
};

/// File name of the manifest in an image's directory.
pub const MANIFEST: &str = "manifest.json";
/// File name of the kernel in an image's directory.
pub const KERNEL: &str = "vmlinuz";
/// File name of the initrd in an image's directory.
pub const INITRD: &str = "initrd.img";

/// The only schema of manifests that there is.
const SCHEMA: u32 = 1;

/// A guest image, as far as it is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    kernel: Sha256Digest,
    initrd: Sha256Digest,
    cmdline: String,
    guard: bool,
}

/// Why a manifest does not say what is measured.
#[derive(Debug, thiserror::Error)]
pub enum GuestImageError {
    /// It is no manifest.
    #[error("is not a guest image manifest")]
    Syntax(#[from] serde_json::Error),
    /// It is of another version.
    #[error("has schema {0}, this program reads {SCHEMA}")]
    Schema(u32),
    /// It leaves out a file.
    #[error("does not list the file {0:?}")]
    Unlisted(&'static str),
    /// It has a digest that is not one.
    #[error("has a malformed digest")]
    Digest(#[from] ParseDigestError),
}

/// A file of an image is not the one that its manifest lists.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{name} has SHA-256 {found}, the manifest says {listed}")]
pub struct OtherFile {
    /// The file.
    pub name: &'static str,
    /// What it has.
    pub found: Sha256Digest,
    /// What it should have.
    pub listed: Sha256Digest,
}

#[derive(Deserialize)]
struct Manifest {
    schema: u32,
    cmdline: String,
    files: BTreeMap<String, File>,
    #[serde(default)]
    kernel: Kernel,
}

#[derive(Default, Deserialize)]
struct Kernel {
    #[serde(default)]
    guard: bool,
}

#[derive(Deserialize)]
struct File {
    sha256: String,
}

impl GuestImage {
    /// From digests that were computed elsewhere.
    #[must_use]
    pub const fn new(kernel: Sha256Digest, initrd: Sha256Digest, cmdline: String) -> Self {
        Self {
            kernel,
            initrd,
            cmdline,
            guard: false,
        }
    }

    /// Reads a manifest; what is not measured is passed over.
    ///
    /// # Errors
    ///
    /// [`GuestImageError`] names what is missing or malformed.
    pub fn parse_manifest(text: &[u8]) -> Result<Self, GuestImageError> {
        let manifest: Manifest = agent_documents::parse_json(text)?;
        if manifest.schema != SCHEMA {
            return Err(GuestImageError::Schema(manifest.schema));
        }
        let digest = |name: &'static str| {
            let file = manifest.files.get(name);
            let file = file.ok_or(GuestImageError::Unlisted(name))?;
            Ok::<_, GuestImageError>(file.sha256.parse()?)
        };
        Ok(Self {
            kernel: digest(KERNEL)?,
            initrd: digest(INITRD)?,
            cmdline: manifest.cmdline,
            guard: manifest.kernel.guard,
        })
    }

    /// Whether the manifest says that the kernel keeps code in the host's ACPI tables from the
    /// guest's memory.
    #[must_use]
    pub const fn has_guard(&self) -> bool {
        self.guard
    }

    /// Compares the image's files with what is listed.
    ///
    /// # Errors
    ///
    /// [`OtherFile`] names the first that differs.
    pub fn check(&self, kernel: &[u8], initrd: &[u8]) -> Result<(), OtherFile> {
        let files = [(KERNEL, self.kernel, kernel), (INITRD, self.initrd, initrd)];
        for (name, listed, content) in files {
            let found = Sha256Digest::of(content);
            if found != listed {
                return Err(OtherFile {
                    name,
                    found,
                    listed,
                });
            }
        }
        Ok(())
    }

    /// The command line that the image was built with.
    #[must_use]
    pub fn cmdline(&self) -> &str {
        &self.cmdline
    }

    /// What the firmware checks when the image boots unchanged.
    #[must_use]
    pub fn hashes(&self) -> KernelHashes {
        self.hashes_with(&self.cmdline)
    }

    /// What the firmware checks when the image boots with another command line.
    #[must_use]
    pub fn hashes_with(&self, cmdline: &str) -> KernelHashes {
        KernelHashes::new(self.kernel, Some(self.initrd), cmdline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(schema: u32, initrd: &str) -> String {
        let kernel = Sha256Digest::of(b"k");
        format!(
            r#"{{"schema":{schema},"cmdline":"quiet","architecture":"x86_64","files":{{
                "vmlinuz":{{"sha256":"{kernel}","bytes":1}},
                "{initrd}":{{"sha256":"{}","bytes":1}}}}}}"#,
            Sha256Digest::of(b"i")
        )
    }

    #[test]
    fn a_manifest_says_what_is_measured() {
        let image = GuestImage::parse_manifest(manifest(1, INITRD).as_bytes()).unwrap();
        let (kernel, initrd) = (Sha256Digest::of(b"k"), Sha256Digest::of(b"i"));
        assert_eq!(image, GuestImage::new(kernel, initrd, "quiet".to_owned()));
        assert_eq!(image.check(b"k", b"i"), Ok(()));
        assert_eq!(image.check(b"k", b"j").unwrap_err().name, INITRD);
        assert_ne!(image.hashes(), image.hashes_with("quiet debug"));
    }

    #[test]
    fn a_manifest_of_another_kind_is_refused() {
        let refused = |text: &str| GuestImage::parse_manifest(text.as_bytes()).unwrap_err();
        let later = refused(&manifest(2, INITRD));
        assert!(matches!(later, GuestImageError::Schema(2)));
        let incomplete = refused(&manifest(1, "other"));
        assert!(matches!(incomplete, GuestImageError::Unlisted(INITRD)));
        assert!(matches!(refused("{}"), GuestImageError::Syntax(_)));
        let malformed = manifest(1, INITRD).replace("\"sha256\":\"", "\"sha256\":\"0");
        assert!(matches!(refused(&malformed), GuestImageError::Digest(_)));
    }
}
