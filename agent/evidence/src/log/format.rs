//! How an entry is written: `TCG_PCR_EVENT2` with one SHA-384 around an `AAEL` tag.
//! Integers are little-endian.

use super::event::Event;

/// The measurement register that our entries name, as for PCR 17 on TDX.
pub const REGISTER: u32 = 4;
/// Type of the events.
pub const EV_EVENT_TAG: u32 = 6;
/// Algorithm of the digests.
pub const SHA_384: u16 = 0x000C;
/// `AAEL`, little-endian by its specification.
pub const TAG: u32 = 0x4141_454C;

/// Tag, length and text of an event: what the digest covers.
pub(super) fn tagged(event: &Event) -> Vec<u8> {
    let text = event.to_string();
    let mut tagged = TAG.to_le_bytes().to_vec();
    tagged.extend(length_field(text.len()));
    tagged.extend(text.as_bytes());
    tagged
}

pub(super) fn length_field(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("an event is bounded far below 4 GiB")
        .to_le_bytes()
}
