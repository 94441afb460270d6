//! What Azure's certificate service answers, as it comes or in base64.
#![no_main]

use policy_appraisal::snp::ThimCertificates;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let parsed = ThimCertificates::parse(bytes);
    assert!(parsed.is_err() || ThimCertificates::is_one(bytes));
});
