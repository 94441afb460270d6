//! A manifest or index as it is somewhere.

use agent_image_registry::Digest;

/// A manifest or index, and what it is.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it is, as far as its place says so.
    pub media_type: Option<String>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}
