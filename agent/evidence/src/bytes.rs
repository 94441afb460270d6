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

/// Takes fields from the front of bytes, as many as there are.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of the bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes a field of so many bytes.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn take(&mut self, wanted: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(wanted).ok_or(Truncated {
            wanted,
            left: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes as many bytes as a `u32` of the input says.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn take_u32(&mut self, wanted: u32) -> Result<&'a [u8], Truncated> {
        self.take(usize::try_from(wanted).unwrap_or(usize::MAX))
    }

    /// Takes a field of fixed size.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated {
            wanted: N,
            left: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes a byte.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a little-endian integer of 16 bits.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn u16_le(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes a little-endian integer of 32 bits.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn u32_le(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a big-endian integer of 16 bits.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn u16_be(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes a big-endian integer of 32 bits.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn u32_be(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    /// Takes a big-endian integer of 64 bits.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if fewer bytes are left.
    pub fn u64_be(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Whether all bytes are zero.
pub fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
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
}
