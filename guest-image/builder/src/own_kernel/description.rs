//! Everything that decides the bytes of a kernel that was built here.

use serde::{Deserialize, Serialize};

/// What a kernel was built from, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltFrom {
    /// The source: a Debian package, or another archive, by its file's name.
    pub source: String,
    /// SHA-256 of that file.
    pub source_sha256: String,
    /// SHA-256 of the list of features.
    pub features_sha256: String,
    /// SHA-256 of the configuration that followed from it.
    pub configuration_sha256: String,
    /// SHA-256 of our patch.
    pub patch_sha256: String,
    /// Compiler, linker and compressor, as they name themselves.
    pub tools: Vec<String>,
    /// What the kernel says of its own build instead of the time and place.
    pub stamps: Vec<String>,
}
