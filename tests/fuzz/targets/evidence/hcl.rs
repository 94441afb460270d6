//! The paravisor's blob, and the user data in what it says at runtime.
#![no_main]

use agent_evidence::azure::HclReport;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(blob) = HclReport::parse(bytes) {
        let _ = blob.user_data();
    }
});
