//! The frame of an IGVM file: its fixed header, and the list of variable headers.
//!
//! Every size and offset in it may lie; what leaves this module lies within the file and has
//! the checksum that the file states. The checksum is no protection: whoever writes a file
//! writes its checksum. It is refused when wrong because a loader would refuse it too.

use super::IgvmError;
use crate::bytes::{array_at, put, u32_at};

pub(super) const MAGIC: [u8; 4] = *b"IGVM";
/// `IGVM_FIXED_HEADER`, and what `IGVM_FIXED_HEADER_V2` appends to it.
pub(super) const FIXED_BYTES: usize = 24;
const FIXED_BYTES_V2: usize = 32;
pub(super) const CHECKSUM_AT: usize = 20;
/// A type and a length stand before each variable header.
pub(super) const PREFIX_BYTES: usize = 8;

const ARCHITECTURE_X64: u32 = 0;
const PAGE_SIZE_4K: u32 = 4096;

/// A file whose sizes and checksum are right.
pub(super) struct Frame<'a> {
    file: &'a [u8],
    headers: &'a [u8],
    /// Where data may begin: behind all headers.
    data_at: usize,
}

/// One variable header.
pub(super) struct Header<'a> {
    pub(super) kind: u32,
    pub(super) value: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, IgvmError> {
        if array_at(file, 0) != Some(MAGIC) {
            return Err(IgvmError::Magic);
        }
        let number = |offset| u32_at(file, offset).ok_or(IgvmError::Truncated);
        let fixed_bytes = match number(4)? {
            1 => FIXED_BYTES,
            2 => {
                machine(number(24)?, number(28)?)?;
                FIXED_BYTES_V2
            }
            version => return Err(IgvmError::Version(version)),
        };
        let (offset, size, total) = (number(8)?, number(12)?, number(16)?);
        if usize::try_from(total) != Ok(file.len()) {
            let (stated, found) = (total, file.len());
            return Err(IgvmError::Size { stated, found });
        }
        let headers_at = usize::try_from(offset).map_err(|_| IgvmError::Headers)?;
        let data_at = usize::try_from(size)
            .ok()
            .and_then(|size| headers_at.checked_add(size))
            .filter(|_| headers_at >= fixed_bytes && headers_at.is_multiple_of(8))
            .ok_or(IgvmError::Headers)?;
        let headers = file.get(headers_at..data_at).ok_or(IgvmError::Headers)?;
        let mut fixed = file
            .get(..fixed_bytes)
            .ok_or(IgvmError::Truncated)?
            .to_vec();
        put(&mut fixed, CHECKSUM_AT, &[0; 4]);
        let (stated, found) = (number(CHECKSUM_AT)?, crc32(&[&fixed, headers]));
        if stated != found {
            return Err(IgvmError::Checksum { stated, found });
        }
        Ok(Self {
            file,
            headers,
            data_at,
        })
    }

    /// The variable headers in order; ends with an error if one does not fit.
    pub(super) fn headers(&self) -> impl Iterator<Item = Result<Header<'a>, IgvmError>> + use<'a> {
        let mut rest = self.headers;
        std::iter::from_fn(move || {
            let taken = (!rest.is_empty()).then(|| split(rest))?;
            rest = taken.as_ref().map_or(&[], |(_, after)| after);
            Some(taken.map(|(header, _)| header).ok_or(IgvmError::Headers))
        })
        .fuse()
    }

    /// So many bytes of the file's data; `None` if they are not there or are headers.
    pub(super) fn data(&self, offset: u32, bytes: usize) -> Option<&'a [u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(bytes)?;
        self.file.get(start..end).filter(|_| start >= self.data_at)
    }
}

fn machine(architecture: u32, page_size: u32) -> Result<(), IgvmError> {
    if architecture != ARCHITECTURE_X64 {
        return Err(IgvmError::Architecture(architecture));
    }
    if page_size != PAGE_SIZE_4K {
        return Err(IgvmError::PageSize(page_size));
    }
    Ok(())
}

/// The next header begins at a multiple of 8 bytes. The definitions want zeros between the two,
/// but igvm-tooling writes the digit 0 there; nobody reads it, so neither is it judged here.
fn split(headers: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let kind = u32_at(headers, 0)?;
    let length = usize::try_from(u32_at(headers, 4)?).ok()?;
    let after = headers.get(PREFIX_BYTES..)?;
    let value = after.get(..length)?;
    let rest = after.get(length.checked_next_multiple_of(8)?..)?;
    Some((Header { kind, value }, rest))
}

/// CRC-32 as in IEEE 802.3, over parts that follow each other.
pub(super) fn crc32(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let carry = crc & 1;
            crc >> 1 ^ (0xedb8_8320 * carry)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }
}
