//! The extensions of a leaf certificate, held against a report that it did not sign.
#![no_main]

use std::sync::LazyLock;

use policy_appraisal::{
    Check, Endorsements, Outcome, Timestamp,
    snp::{ReferenceValues, Roots, UnverifiedReport},
};

static REPORT: &[u8] =
    include_bytes!("../../../../policy/appraisal/tests/vectors/snp/genoa-v3.report.bin");
static ROOTS: LazyLock<Roots> = LazyLock::new(Roots::amd);
static REFERENCES: LazyLock<ReferenceValues> = LazyLock::new(|| {
    let text = r#"{"products": {}, "refused_products": [], "revocation": "optional",
        "guest_policy": {"abi_major": 0, "abi_minor": 0, "smt_allowed": true}, "identities": {}}"#;
    serde_json::from_str(text).expect("reference values")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(endorsements) = Endorsements::parse(bytes) else {
        return;
    };
    let report = UnverifiedReport::parse(REPORT).expect("a report");
    let at = Timestamp::from_unix_seconds(1_748_736_000);
    if let Err(refused) = report.authenticate(&endorsements, &ROOTS, &REFERENCES, at) {
        assert!(!refused.is_accepted());
        assert_ne!(refused.outcome(Check::Debug), Some(Outcome::Passed));
    }
});
