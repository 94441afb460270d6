//! Evidence of any form, and a report of any bytes: located, written, read again, never authentic.
#![no_main]

use policy_appraisal::{
    Endorsements, Evidence,
    azure::AzureEvidence,
    snp::{JsonEvidence, Product, UnverifiedReport},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Evidence::parse(bytes);
    let _ = AzureEvidence::parse(bytes);
    let Ok(report) = UnverifiedReport::parse(bytes) else {
        return;
    };
    for product in Product::ALL {
        let _ = report.locator().kds_request(product);
    }
    let evidence = JsonEvidence {
        report,
        endorsements: Endorsements::default(),
    };
    JsonEvidence::parse(evidence.to_json().as_bytes()).expect("what we write we read");
});
