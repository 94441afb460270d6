//! Signatures of certificates and lists: RSASSA-PSS with SHA-384 and nothing else.

use ring::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};

use super::certificate::PublicKey;

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

/// Whether an encoded `AlgorithmIdentifier` is one of the two forms AMD emits.
pub(crate) fn is_pss(encoded: &[u8]) -> bool {
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
pub(crate) fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    match key {
        PublicKey::Rsa(key) => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(message, signature)
            .is_ok(),
        PublicKey::P384(_) => false,
    }
}
