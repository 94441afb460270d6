//! Any page and block give an answer.
#![no_main]

use guest_image_measurement::id_block::{ID_BLOCK_BYTES, IdAuthentication};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((block, page)) = bytes.split_first_chunk::<ID_BLOCK_BYTES>() {
        let _ = IdAuthentication::verify(page, block);
    }
});
