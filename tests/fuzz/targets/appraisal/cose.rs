//! UVM endorsements. What is signed cannot be made by chance, so that whatever is
//! accepted must be one of the real endorsements up to its unsigned part.
#![no_main]

use std::sync::LazyLock;

use policy_appraisal::{
    Timestamp,
    uvm::{DidX509, UnverifiedEndorsement},
};

static ISSUER: LazyLock<DidX509> = LazyLock::new(|| {
    let text = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2";
    text.parse().expect("an issuer")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(issuer) = text.parse::<DidX509>()
    {
        assert_eq!(issuer.to_string(), text);
    }
    let Ok(endorsement) = UnverifiedEndorsement::parse(bytes) else {
        return;
    };
    let at = Timestamp::from_unix_seconds(1_748_736_000);
    if let Ok(authentic) = endorsement.authenticate([&*ISSUER], at) {
        assert!([22, 100].contains(&authentic.svn()));
    }
});
