//! `COSE_Sign1` (RFC 9052, 4.2): an array of protected header, unprotected header,
//! payload and signature, under tag 18.
//!
//! The signature covers the protected header as it was received, so nothing is written
//! anew but the frame around it. What the unprotected header says is signed by nobody:
//! it must be a map in form, and is then forgotten.

use super::cbor::{Cbor, CborError, bytes_head};
use crate::x509::Certificate;

const TAG: u64 = 18;
const PARTS: u64 = 4;
/// The start of a `Sig_structure` (RFC 9052, 4.4): an array of four, the first of which
/// is the text `Signature1`.
const CONTEXT: &[u8] = b"\x84\x6ASignature1";

/// Whether bytes start like a tagged message, as no base64 does.
pub(super) fn is_tagged(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0xD2)
}

/// A message, taken apart. Nothing of it is proven.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Sign1 {
    pub(super) protected: Vec<u8>,
    pub(super) payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Sign1 {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CborError> {
        let mut outer = Cbor::new(bytes);
        if outer.tag()? != TAG || outer.array()? != PARTS {
            return Err(CborError::Kind {
                wanted: "a COSE_Sign1 of four parts under tag 18",
                found: "another tag or another number of parts",
            });
        }
        let protected = outer.bytes()?.to_vec();
        let _signed_by_nobody = outer.map()?;
        let payload = outer.bytes()?.to_vec();
        let signature = outer.bytes()?.to_vec();
        outer.finish()?;
        Ok(Self {
            protected,
            payload,
            signature,
        })
    }

    /// Whether the certificate's key signed protected header and payload with PS384.
    pub(super) fn is_signed_by(&self, signer: &Certificate) -> bool {
        let no_external_data = bytes_head(0);
        let signed = [
            CONTEXT,
            &bytes_head(self.protected.len()),
            &self.protected,
            &no_external_data,
            &bytes_head(self.payload.len()),
            &self.payload,
        ]
        .concat();
        signer.signed_message(&signed, &self.signature)
    }
}
