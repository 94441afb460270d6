//! What lies between the host's disk and the file system, from the disk up:
//!
//! 1. dm-integrity: a MAC of each 4 KiB that was written, HMAC-SHA-256 cut to 128 bits,
//!    over what is on the disk and where. The MACs are not on the disk but in this
//!    guest's memory, on a RAM disk that grows as they come. So it does not help the
//!    host to change a block, to move one, or to put back what was there before: each
//!    is an I/O error. An ordinary MAC beside the block would not see the last of these,
//!    and it matters: a registry in the host's hand can have a wrong layer unpacked,
//!    which is then refused and removed; the right one takes its blocks; and the host
//!    would put the wrong one's back under the container.
//! 2. dm-crypt: AES-256 in XTS mode.
//!
//! Both keys are drawn here, told to the kernel once, and wiped. What was never written
//! has no MAC and cannot be read; the file system never tries.
//!
//! Kernel documentation: `admin-guide/device-mapper/dm-integrity.rst`, `dm-crypt.rst`,
//! `admin-guide/blockdev/ramdisk.rst`.

use std::{io, path::PathBuf};

use zeroize::Zeroizing;

pub use crate::device_mapper::MappingError;
use crate::{
    device_mapper::{Table, add},
    disk::Disk,
    ext4::BYTES_MAX,
};

/// What is encrypted, and has a MAC, as one.
const UNIT_BYTES: u64 = 4096;
/// Two keys of AES-256.
const CIPHER_KEY_BYTES: usize = 64;
const MAC_KEY_BYTES: usize = 32;
const MAC_BYTES: u64 = 16;
/// The first RAM disk: block major 1 (`admin-guide/devices.txt`).
const RAM_DISK: &str = "1:0";
/// For dm-integrity's own superblock and a journal that is not used.
const RAM_DISK_EXTRA_KIB: u64 = 1024;

/// A disk that the host can neither read nor change unseen.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Where its plaintext is.
    pub(super) path: PathBuf,
    /// How much of it there is.
    pub(super) bytes: u64,
}

impl Mapping {
    /// Protects a disk with keys of its own.
    pub(super) fn of(disk: &Disk) -> Result<Self, MappingError> {
        let bytes = usable(disk);
        let mac_key = key::<MAC_KEY_BYTES>("scratch-integrity")?;
        let integrity = Table {
            layer: "scratch-integrity",
            target: "integrity",
            bytes,
            parameters: integrity_parameters(&mac_key, &disk.device),
        };
        let below = add(&integrity)?;
        let cipher_key = key::<CIPHER_KEY_BYTES>("scratch")?;
        let crypt = Table {
            layer: "scratch",
            target: "crypt",
            bytes,
            parameters: crypt_parameters(&cipher_key, &below.to_string()),
        };
        let number = add(&crypt)?;
        Ok(Self {
            path: format!("/dev/dm-{}", number.minor).into(),
            bytes,
        })
    }
}

/// Whole units, and no more than the file system would use.
fn usable(disk: &Disk) -> u64 {
    disk.bytes.min(BYTES_MAX) / UNIT_BYTES * UNIT_BYTES
}

/// How large the RAM disk for a disk's MACs is, in KiB; it takes memory as it fills.
pub(super) fn ram_disk_kib(disk: &Disk) -> u64 {
    let macs = usable(disk) / UNIT_BYTES * MAC_BYTES;
    macs.div_ceil(1024) + RAM_DISK_EXTRA_KIB
}

fn key<const BYTES: usize>(layer: &'static str) -> Result<Zeroizing<[u8; BYTES]>, MappingError> {
    let mut key = Zeroizing::new([0; BYTES]);
    crate::random::fill_random(key.as_mut_slice()).map_err(|source: io::Error| MappingError {
        step: "draw a key for",
        layer,
        source,
    })?;
    Ok(key)
}

/// Text with room enough from the start: text that moves leaves a copy behind.
fn text(parts: [&str; 2], key: &[u8], rest: &str) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let words = parts[0].len() + parts[1].len() + rest.len();
    let mut text = Zeroizing::new(String::with_capacity(words + 2 * key.len()));
    text.push_str(parts[0]);
    text.push_str(parts[1]);
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.push(DIGITS[usize::from(digit)].into());
        }
    }
    text.push_str(rest);
    text
}

/// What dm-integrity reads: disk, where on it, bytes of a MAC, writes without a journal
/// (nothing outlives this kernel), and options.
fn integrity_parameters(key: &[u8; MAC_KEY_BYTES], device: &str) -> Zeroizing<String> {
    let head = format!(" 0 {MAC_BYTES} D 5 internal_hash:hmac(sha256):");
    let options = format!(
        " meta_device:{RAM_DISK} block_size:{UNIT_BYTES} journal_sectors:64 buffer_sectors:8"
    );
    text([device, &head], key, &options)
}

/// What dm-crypt reads: cipher, key, how far its vectors are shifted, disk, where on
/// it, options.
fn crypt_parameters(key: &[u8; CIPHER_KEY_BYTES], device: &str) -> Zeroizing<String> {
    let rest = format!(" 0 {device} 0 1 sector_size:{UNIT_BYTES}");
    text(["aes-xts-plain64 ", ""], key, &rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_what_their_targets_read() {
        let key: [u8; 64] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let crypt = crypt_parameters(&key, "253:0");
        let expected = format!("aes-xts-plain64 {digits} 0 253:0 0 1 sector_size:4096");
        assert_eq!(*crypt, expected);
        let integrity = integrity_parameters(&[0xab; 32], "254:16");
        let expected = format!(
            "254:16 0 16 D 5 internal_hash:hmac(sha256):{} meta_device:1:0 block_size:4096 \
             journal_sectors:64 buffer_sectors:8",
            "ab".repeat(32)
        );
        assert_eq!(*integrity, expected);
        for text in [crypt, integrity] {
            assert_eq!(text.capacity(), text.len(), "it has not moved");
        }
    }

    #[test]
    fn no_two_keys_are_equal() {
        let (one, two) = (key::<64>("x").unwrap(), key::<64>("x").unwrap());
        assert!(one != two && one.iter().any(|byte| *byte != 0));
    }

    #[test]
    fn macs_take_a_256th_of_what_the_disk_holds() {
        let disk = |bytes| Disk {
            device: "254:0".into(),
            bytes,
        };
        assert_eq!(ram_disk_kib(&disk(1 << 30)), 4096 + 1024);
        assert_eq!(usable(&disk((16 << 20) + 4095)), 16 << 20);
        assert_eq!(ram_disk_kib(&disk(u64::MAX)), (16 << 20) + 1024);
    }
}
