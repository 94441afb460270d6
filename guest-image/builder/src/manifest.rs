//! What a guest image says about itself.
//!
//! `manifest.json` names every file with its digest and every input with its digest, so that
//! whoever holds the inputs can build the image again and compare. It is written last and read
//! back strictly: unknown fields are errors. It proves nothing by itself; the launch
//! measurement does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use guest_image_measurement::Sha256Digest;
pub use guest_image_measurement::{INITRD, KERNEL, MANIFEST as FILE_NAME};
use serde::{Deserialize, Serialize};

use crate::own_kernel::BuiltFrom;

/// The only schema there is.
const SCHEMA: u32 = 1;

/// A guest image's description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this structure.
    pub schema: u32,
    /// Processor architecture, as `uname -m` prints it.
    pub architecture: String,
    /// The kernel command line; it is measured, so nobody may add to it.
    pub cmdline: String,
    /// The image's files, by name.
    pub files: BTreeMap<String, FileDigest>,
    /// The kernel.
    pub kernel: KernelDescription,
    /// The initrd.
    pub initrd: InitrdDescription,
    /// The kernel modules in the initrd.
    pub modules: ModulesDescription,
    /// What the image was built from, by role.
    pub inputs: BTreeMap<String, FileDigest>,
    /// What built it.
    pub builder: BuilderDescription,
}

/// Digest and size of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Size.
    pub bytes: u64,
}

/// The kernel of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelDescription {
    /// As `uname -r` prints it.
    pub release: String,
    /// Debian package, if it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Version of that package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_version: Option<String>,
    /// Whether it keeps code in the host's ACPI tables from the guest's memory.
    #[serde(default)]
    pub guard: bool,
    /// What it was built from, if it is our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_from: Option<BuiltFrom>,
}

/// The initrd of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitrdDescription {
    /// `none`, `lz4` or `zstd`.
    pub compression: String,
    /// Size of the archive before compression: what it takes of the guest's memory.
    pub unpacked_bytes: u64,
    /// How many certificate authorities the guest trusts.
    pub certificates: usize,
}

/// The kernel modules of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModulesDescription {
    /// Loaded at boot, in this order.
    pub boot: Vec<String>,
    /// Loaded when a feature is asked for, in this order.
    pub on_demand: BTreeMap<String, Vec<String>>,
    /// Wanted ones that are part of the kernel.
    pub builtin: BTreeSet<String>,
    /// Wanted ones that this kernel does not have.
    pub missing: BTreeSet<String>,
    /// Every module in the initrd, uncompressed.
    pub files: BTreeMap<String, FileDigest>,
}

/// What built an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuilderDescription {
    /// Version of this program.
    pub version: String,
}

/// Why an image is not what its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file of the image cannot be read.
    #[error("cannot read {path:?} of the guest image: build it with `kata-cc-image build`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("{path:?} is not a guest image manifest")]
    Syntax {
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest is of another version.
    #[error("{path:?} has schema {found}, this program reads {SCHEMA}")]
    Schema {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// The manifest leaves out a file.
    #[error("{path:?} does not list the file {name:?}")]
    Unlisted {
        /// The manifest.
        path: PathBuf,
        /// What is missing.
        name: &'static str,
    },
    /// A file's content is not the one listed.
    #[error("{path:?} has SHA-256 {found}, its manifest says {listed}: build the image again")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        listed: String,
    },
}

impl FileDigest {
    /// Digest and size of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: Sha256Digest::of(bytes).to_string(),
            bytes: bytes.len() as u64,
        }
    }
}

impl Manifest {
    /// The schema that this program writes and reads.
    #[must_use]
    pub fn current_schema() -> u32 {
        SCHEMA
    }

    /// The manifest's text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest has text keys only");
        text.push(b'\n');
        text
    }

    /// Reads the manifest of the image in a directory, without looking at its files.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not of this schema.
    pub fn read(directory: &Path) -> Result<Self, ManifestError> {
        let path = directory.join(FILE_NAME);
        let text = read(&path)?;
        let manifest: Self = match agent_documents::parse_json(&text) {
            Ok(manifest) => manifest,
            Err(source) => return Err(ManifestError::Syntax { path, source }),
        };
        if manifest.schema != SCHEMA {
            let found = manifest.schema;
            return Err(ManifestError::Schema { path, found });
        }
        for name in [KERNEL, INITRD] {
            if !manifest.files.contains_key(name) {
                return Err(ManifestError::Unlisted { path, name });
            }
        }
        Ok(manifest)
    }

    /// Compares the image's kernel and initrd with their digests.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is another one.
    pub fn check_files(&self, directory: &Path) -> Result<(), ManifestError> {
        for name in [KERNEL, INITRD] {
            let path = directory.join(name);
            let found = FileDigest::of(&read(&path)?).sha256;
            let listed = self.files.get(name).map(|file| file.sha256.clone());
            if listed.as_ref() != Some(&found) {
                let listed = listed.unwrap_or_default();
                return Err(ManifestError::Mismatch {
                    path,
                    found,
                    listed,
                });
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ManifestError> {
    fs::read(path).map_err(|source| ManifestError::Read {
        path: path.to_owned(),
        source,
    })
}
