//! A disk under dm-crypt, made by three calls to device mapper (`linux/dm-ioctl.h`,
//! `Documentation/admin-guide/device-mapper/dm-crypt.rst`).
//!
//! AES-256 in XTS mode with a key of 512 bits that is drawn here, told to the kernel
//! once, wiped, and never known to anybody else. What the host makes of the ciphertext
//! can then only be noise, or what was in the same place before: XTS has no integrity.

use std::{fs::File, io, path::PathBuf};

use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::{
    disk::Disk,
    kernel::{DM_HEADER_BYTES, device_mapper},
};

const CONTROL: &str = "/dev/mapper/control";
const NAME: &str = "scratch";
/// The kernel's unit for the places of a table.
const SECTOR_BYTES: u64 = 512;
/// What is encrypted as one, with one initialisation vector.
const UNIT_BYTES: u64 = 4096;
/// Two keys of AES-256.
const KEY_BYTES: usize = 64;

/// Interface version that the calls below have had since Linux 3.0.
const VERSION: [u32; 3] = [4, 0, 0];
const CREATE: u8 = 3;
const SUSPEND_OR_RESUME: u8 = 6;
const LOAD_TABLE: u8 = 9;
/// `DM_SECURE_DATA_FLAG`: the kernel wipes its copy of the message.
const SECURE: u32 = 1 << 15;

const VERSION_AT: usize = 0;
const DATA_START_AT: usize = 16;
const TARGETS_AT: usize = 20;
const FLAGS_AT: usize = 28;
const DEVICE_AT: usize = 40;
const NAME_AT: usize = 48;
/// `struct dm_target_spec`: start, length, status, next, and a name of 16 bytes.
const TARGET_BYTES: usize = 40;
const TARGET_LENGTH_AT: usize = 8;
const TARGET_NEXT_AT: usize = 20;
const TARGET_NAME_AT: usize = 24;

/// The disk cannot be encrypted.
#[derive(Debug, Error)]
#[error("cannot {step}")]
pub struct MappingError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// An encrypted disk.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Where its plaintext is.
    pub(super) path: PathBuf,
    /// How much of it there is.
    pub(super) bytes: u64,
}

impl Mapping {
    /// Encrypts a disk with a key of its own.
    pub(super) fn of(disk: &Disk) -> Result<Self, MappingError> {
        let failed = |step| move |source| MappingError { step, source };
        let control = File::options().read(true).write(true).open(CONTROL);
        let control = control.map_err(failed("reach the kernel's device mapper"))?;
        let bytes = disk.bytes / UNIT_BYTES * UNIT_BYTES;

        let mut create = header(0);
        device_mapper(&control, CREATE, &mut create).map_err(failed("name the encrypted disk"))?;
        let minor = minor(&create).ok_or_else(|| failed("number the encrypted disk")(lost()))?;

        let key = random_key().map_err(failed("draw its key"))?;
        let mut message = load_message(bytes / SECTOR_BYTES, &parameters(&key, &disk.device));
        device_mapper(&control, LOAD_TABLE, &mut message).map_err(failed("set its key"))?;
        device_mapper(&control, SUSPEND_OR_RESUME, &mut header(0)).map_err(failed("start it"))?;
        Ok(Self {
            path: format!("/dev/dm-{minor}").into(),
            bytes,
        })
    }
}

fn lost() -> io::Error {
    io::Error::other("the kernel's answer has no number")
}

fn random_key() -> io::Result<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    super::fill_random(key.as_mut_slice())?;
    Ok(key)
}

/// What dm-crypt reads: cipher, key, how far its vectors are shifted, disk, where on
/// it, options.
fn parameters(key: &[u8; KEY_BYTES], device: &str) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Long enough from the start: text that moves leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 128));
    text.push_str("aes-xts-plain64 ");
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.push(DIGITS[usize::from(digit)].into());
        }
    }
    text.push_str(" 0 ");
    text.push_str(device);
    text.push_str(" 0 1 sector_size:4096");
    text
}

fn header(flags: u32) -> Vec<u8> {
    let mut message = vec![0; DM_HEADER_BYTES];
    for (index, part) in VERSION.into_iter().enumerate() {
        put(&mut message, VERSION_AT + 4 * index, &part.to_le_bytes());
    }
    let start = u32::try_from(DM_HEADER_BYTES).unwrap_or(u32::MAX);
    put(&mut message, DATA_START_AT, &start.to_le_bytes());
    put(&mut message, FLAGS_AT, &flags.to_le_bytes());
    put(&mut message, NAME_AT, NAME.as_bytes());
    message
}

/// The message that loads a table of one target.
fn load_message(sectors: u64, parameters: &str) -> Zeroizing<Vec<u8>> {
    // The text ends with a zero, and the next target would start at a multiple of 8.
    let text_bytes = (parameters.len() + 1).next_multiple_of(8);
    let mut head = header(SECURE);
    put(&mut head, TARGETS_AT, &1_u32.to_le_bytes());
    let mut message = Zeroizing::new(vec![0; DM_HEADER_BYTES + TARGET_BYTES + text_bytes]);
    put(&mut message, 0, &head);
    head.zeroize();
    let target = DM_HEADER_BYTES;
    put(
        &mut message,
        target + TARGET_LENGTH_AT,
        &sectors.to_le_bytes(),
    );
    let next = u32::try_from(TARGET_BYTES + text_bytes).unwrap_or(0);
    put(&mut message, target + TARGET_NEXT_AT, &next.to_le_bytes());
    put(&mut message, target + TARGET_NAME_AT, b"crypt");
    put(&mut message, target + TARGET_BYTES, parameters.as_bytes());
    message
}

/// The number of the disk that the kernel made, out of its answer: the low byte and
/// the bits from 20 on (`linux/kdev_t.h`, `new_encode_dev`).
fn minor(answer: &[u8]) -> Option<u64> {
    let bytes = answer.get(DEVICE_AT..DEVICE_AT + 8)?;
    let device = u64::from_le_bytes(bytes.try_into().ok()?);
    Some((device & 0xff) | ((device >> 12) & 0xf_ff00))
}

/// Places are constants and lie inside the messages made above.
fn put(message: &mut [u8], at: usize, value: &[u8]) {
    message[at..at + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> [u8; KEY_BYTES] {
        std::array::from_fn(|index| u8::try_from(index).unwrap())
    }

    #[test]
    fn the_table_is_what_dm_crypt_reads() {
        let text = parameters(&key(), "254:16");
        let (cipher, rest) = text.split_once(' ').unwrap();
        let (digits, rest) = rest.split_once(' ').unwrap();
        assert_eq!(cipher, "aes-xts-plain64");
        assert_eq!(digits.len(), 128);
        assert!(digits.starts_with("000102") && digits.ends_with("3e3f"));
        assert_eq!(rest, "0 254:16 0 1 sector_size:4096");
        assert!(text.capacity() >= text.len() + 32, "it must not have moved");
    }

    #[test]
    fn a_message_says_one_target_and_is_wiped_by_the_kernel() {
        let message = load_message(0x1234, "text");
        assert_eq!(message.len(), 312 + 40 + 8);
        assert_eq!(message[0], 4, "version");
        assert_eq!(message[16..20], 312_u32.to_le_bytes(), "data start");
        assert_eq!(message[20..24], 1_u32.to_le_bytes(), "targets");
        assert_eq!(message[28..32], 0x8000_u32.to_le_bytes(), "flags");
        assert_eq!(&message[48..56], b"scratch\0");
        assert_eq!(message[320..328], 0x1234_u64.to_le_bytes(), "length");
        assert_eq!(message[332..336], 48_u32.to_le_bytes(), "next");
        assert_eq!(&message[336..342], b"crypt\0");
        assert_eq!(&message[352..357], b"text\0");
    }

    #[test]
    fn the_kernels_number_is_unpacked() {
        let mut answer = header(0);
        for (device, expected) in [(0xfd00_u64, 0), (0xfd03, 3), (0x10_fd01, 0x101)] {
            put(&mut answer, DEVICE_AT, &device.to_le_bytes());
            assert_eq!(minor(&answer), Some(expected));
        }
        assert_eq!(minor(&[]), None);
    }

    #[test]
    fn no_two_keys_are_equal() {
        let (one, two) = (random_key().unwrap(), random_key().unwrap());
        assert!(one != two && one.iter().any(|byte| *byte != 0));
    }
}
