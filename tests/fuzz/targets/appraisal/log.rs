//! A measurement log: what replays is written again byte for byte.
#![no_main]

use policy_appraisal::replay;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(log) = replay(bytes) {
        assert_eq!(log.as_bytes(), bytes);
    }
});
