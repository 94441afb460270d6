//! Certificates and revocation lists in any container: table, PEM or DER.
#![no_main]

use policy_appraisal::{Certificate, Crl, Endorsements};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Crl::parse(bytes);
    if let Ok(certificate) = Certificate::parse(bytes) {
        assert_eq!(certificate.as_der(), bytes);
    }
    if let Ok(endorsements) = Endorsements::parse(bytes) {
        for certificate in endorsements.certificates() {
            Certificate::parse(certificate.as_der()).expect("what was kept is well formed");
        }
    }
});
