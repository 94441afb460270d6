//! The frame on the block device: magic, length, packed document, zeros.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | `initdata` |
//! | 8–15 | length of what follows, little-endian |
//! | 16… | the packed document, exactly as long as said |
//! | rest | zeros up to a multiple of 512 |

use thiserror::Error;

use super::{DISK_BYTES_MAX, PACKED_BYTES_MAX};

/// What an initdata disk starts with.
pub const MAGIC: [u8; 8] = *b"initdata";

/// Magic and length.
pub const HEADER_BYTES: usize = MAGIC.len() + size_of::<u64>();

/// Block devices are read and sized in these.
const SECTOR_BYTES: usize = 512;

/// Why a disk's content is not a frame. The host is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DiskError {
    /// More bytes than a disk may have.
    #[error("the initdata disk is larger than {DISK_BYTES_MAX} bytes")]
    TooLarge,
    /// It does not start with the magic and a length.
    #[error("the disk does not start as an initdata disk does")]
    Header,
    /// The length points past the end.
    #[error("the initdata disk says that {0} bytes follow, but it ends before")]
    Length(u64),
    /// Nothing is in it.
    #[error("the initdata disk is empty")]
    Empty,
    /// Something follows the document.
    #[error("the initdata disk has more than zeros behind the document")]
    Tail,
}

/// The frame around a packed document.
///
/// # Errors
///
/// [`DiskError::TooLarge`] if the document does not fit, [`DiskError::Empty`] if there is none.
pub fn frame(packed: &[u8]) -> Result<Vec<u8>, DiskError> {
    if packed.is_empty() {
        return Err(DiskError::Empty);
    }
    if packed.len() > PACKED_BYTES_MAX {
        return Err(DiskError::TooLarge);
    }
    let length = u64::try_from(packed.len()).map_err(|_| DiskError::TooLarge)?;
    let mut disk = Vec::with_capacity((HEADER_BYTES + packed.len()).next_multiple_of(SECTOR_BYTES));
    disk.extend(MAGIC);
    disk.extend(length.to_le_bytes());
    disk.extend(packed);
    disk.resize(disk.len().next_multiple_of(SECTOR_BYTES), 0);
    Ok(disk)
}

/// The packed document in a disk's content.
///
/// # Errors
///
/// [`DiskError`] names what is wrong with the frame.
pub fn unframe(disk: &[u8]) -> Result<&[u8], DiskError> {
    if disk.len() > DISK_BYTES_MAX {
        return Err(DiskError::TooLarge);
    }
    let rest = disk.strip_prefix(&MAGIC).ok_or(DiskError::Header)?;
    let (length, rest) = rest.split_first_chunk().ok_or(DiskError::Header)?;
    let length = u64::from_le_bytes(*length);
    let (packed, tail) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or(DiskError::Length(length))?;
    if packed.is_empty() {
        return Err(DiskError::Empty);
    }
    if tail.iter().any(|&byte| byte != 0) {
        return Err(DiskError::Tail);
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_whole_sectors() {
        let disk = frame(&[7; 500]).unwrap();
        assert_eq!(disk.len(), 1024);
        assert_eq!(disk[..16], *b"initdata\xf4\x01\0\0\0\0\0\0");
    }

    #[test]
    fn each_broken_rule_is_named() {
        let disk = frame(b"packed").unwrap();
        let with = |place: usize, byte: u8| {
            let mut changed = disk.clone();
            changed[place] = byte;
            unframe(&changed).map(<[u8]>::to_vec)
        };
        assert_eq!(with(0, b'I'), Err(DiskError::Header));
        assert_eq!(with(15, 0x80), Err(DiskError::Length(6 | 0x80 << 56)));
        assert_eq!(with(9, 2), Err(DiskError::Length(0x206)));
        assert_eq!(with(8, 0), Err(DiskError::Empty));
        assert_eq!(with(8, 5), Err(DiskError::Tail));
        assert_eq!(with(511, 1), Err(DiskError::Tail));
        assert_eq!(unframe(&disk[..15]), Err(DiskError::Header));
        assert_eq!(unframe(&disk[..16]), Err(DiskError::Length(6)));
        assert_eq!(unframe(b""), Err(DiskError::Header));
        let large = vec![0; DISK_BYTES_MAX + 1];
        assert_eq!(unframe(&large), Err(DiskError::TooLarge));
        assert_eq!(frame(&large), Err(DiskError::TooLarge));
        assert_eq!(frame(b""), Err(DiskError::Empty));
    }

    #[test]
    fn the_largest_document_fits_the_largest_disk() {
        let disk = frame(&vec![1; PACKED_BYTES_MAX]).unwrap();
        assert_eq!(disk.len(), DISK_BYTES_MAX);
        assert_eq!(unframe(&disk).unwrap().len(), PACKED_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn what_is_framed_comes_back(packed in prop::collection::vec(any::<u8>(), 1..2000)) {
            let disk = frame(&packed).unwrap();
            prop_assert_eq!(unframe(&disk), Ok(packed.as_slice()));
        }
    }
}
