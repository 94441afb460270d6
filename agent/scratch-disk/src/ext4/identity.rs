//! What makes a file system that one and no other.

/// What tells one file system from another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    /// Its name, and the start of every checksum.
    pub(crate) uuid: [u8; 16],
    /// Seeds the hash of directories, so that nobody can foresee collisions.
    pub(crate) hash_seed: [u8; 16],
    /// When it is made, in seconds since 1970.
    pub(crate) made: u32,
}
