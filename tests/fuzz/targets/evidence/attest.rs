//! A TPM's quote.
#![no_main]

use agent_evidence::azure::Attest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(attest) = Attest::parse(bytes) {
        assert!(attest.nonce.len() <= 256 && attest.pcr_digest.len() <= 256);
    }
});
