//! The paravisor's blob.
#![no_main]

use agent_evidence::azure::HclReport;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = HclReport::parse(bytes);
});
