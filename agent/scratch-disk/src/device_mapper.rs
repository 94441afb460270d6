//! Device mapper's interface, as bytes (`linux/dm-ioctl.h`): one call names a disk, one
//! says what it is made of, one starts it.

use std::{fmt, fs::File, io};

use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::kernel::{DM_HEADER_BYTES, device_mapper};

const CONTROL: &str = "/dev/mapper/control";
/// The kernel's unit for the places of a table.
const SECTOR_BYTES: u64 = 512;

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

/// A layer of the scratch disk cannot be made.
#[derive(Debug, Error)]
#[error("cannot {step} layer `{layer}`")]
pub struct MappingError {
    pub(super) step: &'static str,
    pub(super) layer: &'static str,
    #[source]
    pub(super) source: io::Error,
}

/// A disk of device mapper's, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    major: u64,
    pub(super) minor: u64,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What a disk is made of.
pub(super) struct Table {
    /// The disk's name.
    pub(super) layer: &'static str,
    /// Which of the kernel's targets does the work.
    pub(super) target: &'static str,
    /// How large it is.
    pub(super) bytes: u64,
    /// What the target reads, keys included.
    pub(super) parameters: Zeroizing<String>,
}

/// Makes a disk.
pub(super) fn add(table: &Table) -> Result<Number, MappingError> {
    let layer = table.layer;
    let failed = |step| {
        move |source| MappingError {
            step,
            layer,
            source,
        }
    };
    let control = File::options().read(true).write(true).open(CONTROL);
    let control = control.map_err(failed("reach device mapper for"))?;
    let mut create = header(layer, 0);
    device_mapper(&control, CREATE, &mut create).map_err(failed("name"))?;
    let number = number(&create).ok_or_else(|| {
        let source = io::Error::other("the kernel's answer is too short");
        failed("number")(source)
    })?;
    device_mapper(&control, LOAD_TABLE, &mut load_message(table)).map_err(failed("set up"))?;
    device_mapper(&control, SUSPEND_OR_RESUME, &mut header(layer, 0)).map_err(failed("start"))?;
    Ok(number)
}

fn header(name: &str, flags: u32) -> Vec<u8> {
    let mut message = vec![0; DM_HEADER_BYTES];
    for (index, part) in VERSION.into_iter().enumerate() {
        put(&mut message, VERSION_AT + 4 * index, &part.to_le_bytes());
    }
    let start = u32::try_from(DM_HEADER_BYTES).unwrap_or(u32::MAX);
    put(&mut message, DATA_START_AT, &start.to_le_bytes());
    put(&mut message, FLAGS_AT, &flags.to_le_bytes());
    put(&mut message, NAME_AT, name.as_bytes());
    message
}

/// The message that loads a table of one target.
fn load_message(table: &Table) -> Zeroizing<Vec<u8>> {
    // The text ends with a zero, and the next target would start at a multiple of 8.
    let text_bytes = (table.parameters.len() + 1).next_multiple_of(8);
    let mut head = header(table.layer, SECURE);
    put(&mut head, TARGETS_AT, &1_u32.to_le_bytes());
    let mut message = Zeroizing::new(vec![0; DM_HEADER_BYTES + TARGET_BYTES + text_bytes]);
    put(&mut message, 0, &head);
    head.zeroize();
    let target = DM_HEADER_BYTES;
    let sectors = table.bytes / SECTOR_BYTES;
    put(
        &mut message,
        target + TARGET_LENGTH_AT,
        &sectors.to_le_bytes(),
    );
    let next = u32::try_from(TARGET_BYTES + text_bytes).unwrap_or(0);
    put(&mut message, target + TARGET_NEXT_AT, &next.to_le_bytes());
    put(
        &mut message,
        target + TARGET_NAME_AT,
        table.target.as_bytes(),
    );
    put(
        &mut message,
        target + TARGET_BYTES,
        table.parameters.as_bytes(),
    );
    message
}

/// The number of the disk that the kernel made, out of its answer (`linux/kdev_t.h`,
/// `new_encode_dev`): 12 bits of major number from bit 8, around them the minor one.
fn number(answer: &[u8]) -> Option<Number> {
    let bytes = answer.get(DEVICE_AT..DEVICE_AT + 8)?;
    let device = u64::from_le_bytes(bytes.try_into().ok()?);
    Some(Number {
        major: (device >> 8) & 0xfff,
        minor: (device & 0xff) | ((device >> 12) & 0xf_ff00),
    })
}

/// Places are constants and lie inside the messages made above.
fn put(message: &mut [u8], at: usize, value: &[u8]) {
    message[at..at + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_one_target_and_is_wiped_by_the_kernel() {
        let message = load_message(&Table {
            layer: "scratch",
            target: "crypt",
            bytes: 0x1234 * 512,
            parameters: Zeroizing::new("text".to_owned()),
        });
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
        let mut answer = header("x", 0);
        for (device, expected) in [
            (0xfd00_u64, "253:0"),
            (0xfd03, "253:3"),
            (0x10_fd01, "253:257"),
        ] {
            put(&mut answer, DEVICE_AT, &device.to_le_bytes());
            assert_eq!(number(&answer).unwrap().to_string(), expected);
        }
        assert_eq!(number(&[]), None);
    }
}
