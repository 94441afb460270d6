//! A bounded reader over hostile bytes.
//!
//! Every multi-byte field of a report, a quote, a certificate table or an event
//! log is taken through here: a length that lies ends in [`Truncated`], never in
//! a panic or a read past the end.

/// The bytes ended before a field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field of {wanted} bytes starts where {left} are left")]
pub struct Truncated {
    /// Size of the field, in bytes.
    pub wanted: usize,
    /// What was left, in bytes.
    pub left: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, wanted: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(wanted).ok_or(Truncated {
            wanted,
            left: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes as many bytes as a `u32` of the input says.
    pub(crate) fn take_u32(&mut self, wanted: u32) -> Result<&'a [u8], Truncated> {
        self.take(usize::try_from(wanted).unwrap_or(usize::MAX))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated {
            wanted: N,
            left: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Truncated> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16_le(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32_le(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64_le(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u16_be(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32_be(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64_be(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Whether all bytes are zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Compares without an early exit, so that time does not tell where bytes differ.
pub(crate) fn same_bytes(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let differing = left
        .iter()
        .zip(right)
        .fold(0, |seen, (a, b)| seen | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_stops_at_a_length_that_lies() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16_le(), Ok(0x0201));
        assert_eq!(reader.take_u32(u32::MAX).unwrap_err().left, 1);
        assert_eq!(reader.u32_be(), Err(Truncated { wanted: 4, left: 1 }));
        assert_eq!(reader.u8(), Ok(3));
        assert!(reader.is_empty());
    }

    #[test]
    fn comparison_needs_equal_lengths() {
        assert!(same_bytes(b"ab", b"ab"));
        assert!(!same_bytes(b"ab", b"ac"));
        assert!(!same_bytes(b"ab", b"abc"));
    }
}
