//! Reference values: what is read is written, and read again as the same.
#![no_main]

use policy_appraisal::snp::ReferenceValues;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(values) = serde_json::from_slice::<ReferenceValues>(bytes) {
        let written = serde_json::to_vec(&values).expect("reference values are json");
        let again: ReferenceValues =
            serde_json::from_slice(&written).expect("what we write we read");
        assert_eq!(again, values);
    }
});
