//! Little-endian numbers at fixed places of a record.
//!
//! Places are constants of the on-disk format and lie inside their records, which
//! every test of the format proves by writing each of them.

pub(super) fn put(record: &mut [u8], at: usize, value: &[u8]) {
    record[at..at + value.len()].copy_from_slice(value);
}

pub(super) fn put16(record: &mut [u8], at: usize, value: u16) {
    put(record, at, &value.to_le_bytes());
}

pub(super) fn put32(record: &mut [u8], at: usize, value: u32) {
    put(record, at, &value.to_le_bytes());
}

pub(super) fn put64(record: &mut [u8], at: usize, value: u64) {
    put(record, at, &value.to_le_bytes());
}

/// A number that a group bounds: no group has more than 32 768 of anything.
pub(super) fn put16_of(record: &mut [u8], at: usize, value: u32) {
    put16(
        record,
        at,
        u16::try_from(value).expect("a group is 32 768 blocks"),
    );
}

pub(super) fn low_half(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// A checksum whose halves lie apart: the low one first.
pub(super) fn put_split(record: &mut [u8], (low, high): (usize, usize), value: u32) {
    put16(record, low, low_half(value));
    put16(record, high, low_half(value >> 16));
}
