//! Signatures of certificates, lists and messages: RSA with SHA-384 and nothing else.
//!
//! Each authority signs in one way, and that way is the caller's to name: AMD's with
//! RSASSA-PSS, those of UVM endorsements with PKCS #1 v1.5.

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA384, RsaParameters, UnparsedPublicKey,
};

use super::key::PublicKey;

/// `AlgorithmIdentifier` of RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48
/// octets (RFC 4055, 3.1), as strict DER writes it: no `trailerField`.
const PSS: [u8; 67] = [
    0x30, 0x41, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0A, 0x30, 0x34, 0xA0,
    0x0F, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
    0xA1, 0x1C, 0x30, 0x1A, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x08, 0x30,
    0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xA2, 0x03,
    0x02, 0x01, 0x30,
];

/// What AMD's roots, intermediates and certificates up to 2023 add at the end:
/// `trailerField` with its default value 1, spelt out.
const TRAILER_FIELD: [u8; 5] = [0xA3, 0x03, 0x02, 0x01, 0x01];

/// `AlgorithmIdentifier` of RSASSA-PKCS1-v1_5 with SHA-384 (RFC 4055, 5).
const PKCS1: [u8; 15] = [
    0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C, 0x05, 0x00,
];

/// How an authority signs; SHA-384 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Pss,
    Pkcs1,
}

impl Scheme {
    /// Whether an encoded `AlgorithmIdentifier` names this scheme.
    pub(crate) fn is_named_by(self, encoded: &[u8]) -> bool {
        match self {
            Self::Pss => is_pss(encoded),
            Self::Pkcs1 => encoded == PKCS1,
        }
    }

    fn parameters(self) -> &'static RsaParameters {
        match self {
            Self::Pss => &RSA_PSS_2048_8192_SHA384,
            Self::Pkcs1 => &RSA_PKCS1_2048_8192_SHA384,
        }
    }
}

/// Whether an encoded `AlgorithmIdentifier` is one of the two forms AMD emits.
fn is_pss(encoded: &[u8]) -> bool {
    if encoded == PSS {
        return true;
    }
    // The trailer makes both enclosing sequences longer by its own five octets.
    let mut spelt_out = PSS.to_vec();
    spelt_out.extend(TRAILER_FIELD);
    for length_at in [1, 14] {
        if let Some(length) = spelt_out.get_mut(length_at) {
            *length += 5;
        }
    }
    encoded == spelt_out
}

/// Whether `key` made `signature` over `message`.
pub(crate) fn verifies(scheme: Scheme, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    match key {
        PublicKey::Rsa(key) => UnparsedPublicKey::new(scheme.parameters(), key)
            .verify(message, signature)
            .is_ok(),
        PublicKey::P384(_) => false,
    }
}
