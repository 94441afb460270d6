//! GUIDs in the byte order of UEFI: the first three fields little-endian.

/// A GUID as it stands in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guid(pub(crate) [u8; 16]);

impl Guid {
    /// From the five groups of its text, the last two as one number.
    pub(crate) const fn new(a: u32, b: u16, c: u16, tail: u64) -> Self {
        let (a, b, c, t) = (
            a.to_le_bytes(),
            b.to_le_bytes(),
            c.to_le_bytes(),
            tail.to_be_bytes(),
        );
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], t[0], t[1], t[2], t[3], t[4], t[5],
            t[6], t[7],
        ])
    }
}
