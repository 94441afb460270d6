//! Reading little-endian numbers at offsets that may lie.

/// `N` bytes at an offset, if they are there.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    let end = offset.checked_add(N)?;
    bytes.get(offset..end)?.try_into().ok()
}

/// A `u16` at an offset, if it is there.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

/// A `u32` at an offset, if it is there.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// Copies `part` to an offset of a structure that was made large enough for it.
pub(crate) fn put(structure: &mut [u8], offset: usize, part: &[u8]) {
    structure
        .get_mut(offset..)
        .and_then(|rest| rest.get_mut(..part.len()))
        .expect("offsets and sizes are constants of the structure")
        .copy_from_slice(part);
}
