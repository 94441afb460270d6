//! A measurement log: what replays is written again byte for byte.
#![no_main]

use agent_evidence::log::MeasurementLog;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(log) = MeasurementLog::replay(bytes) {
        assert_eq!(log.as_bytes(), bytes);
    }
});
