//! The paravisor's blob, and evidence around it.
#![no_main]

use agent_evidence::azure::{AzureEvidence, HclReport};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = HclReport::parse(bytes);
    let _ = AzureEvidence::parse(bytes);
});
