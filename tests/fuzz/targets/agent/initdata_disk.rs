//! What the host may put on the initdata disk, down to the document.

#![no_main]

use agent_protocol::initdata::{disk, packed};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(packed) = disk::unframe(bytes) {
        let _ = packed::unpack(packed);
    }
    // Few random bytes pass the frame; most of the work is behind it.
    let _ = packed::unpack(bytes);
});
