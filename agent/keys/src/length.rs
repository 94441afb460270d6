//! Members whose length is fixed.

/// A member with another length than the only one it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{member}` has {found} bytes instead of {expected}")]
pub struct LengthError {
    /// Its name in the document.
    pub member: &'static str,
    /// Its length in bytes.
    pub found: usize,
    /// The right one.
    pub expected: usize,
}

/// Bytes of a fixed length.
pub(crate) fn exactly<const N: usize>(
    member: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], LengthError> {
    bytes.try_into().map_err(|_| LengthError {
        member,
        found: bytes.len(),
        expected: N,
    })
}
