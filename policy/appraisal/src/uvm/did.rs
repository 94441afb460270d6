//! Issuers: `did:x509:0:sha256:<root>::eku:<oid>`.
//!
//! The name carries its own proof rule: who can show a chain that ends in a root with
//! this SHA-256 fingerprint, from a leaf with this extended key usage, is the issuer.
//! Other fingerprints and policies of the method are not read, since no endorsement
//! uses them. Format: *did:x509 method specification*, version 0, of microsoft/did-x509.

use std::{fmt, str::FromStr};

use agent_evidence::Sha256Digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Text is not an issuer of the form we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DidX509Error {
    /// Another method, version, fingerprint or policy.
    #[error("an issuer is written did:x509:0:sha256:FINGERPRINT::eku:OID")]
    Form,
    /// The fingerprint is not 32 bytes in base64url without padding.
    #[error("the issuer's fingerprint is not a sha-256 in base64url")]
    Fingerprint,
    /// The OID is not one, or not in its shortest form.
    #[error("the issuer's extended key usage is not an object identifier")]
    Usage,
}

/// An issuer that proves itself by certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DidX509 {
    /// Fingerprint of the root.
    pub(super) root: Sha256Digest,
    /// Extended key usage of the leaf: content octets of its OID.
    pub(super) usage: Vec<u8>,
    /// As written; one issuer has one text.
    text: String,
}

impl FromStr for DidX509 {
    type Err = DidX509Error;

    fn from_str(text: &str) -> Result<Self, DidX509Error> {
        let (fingerprint, usage) = text
            .strip_prefix("did:x509:0:sha256:")
            .and_then(|rest| rest.split_once("::eku:"))
            .ok_or(DidX509Error::Form)?;
        let root = URL_SAFE_NO_PAD.decode(fingerprint).ok();
        let root = root.and_then(|root| root.try_into().ok());
        Ok(Self {
            root: Sha256Digest(root.ok_or(DidX509Error::Fingerprint)?),
            usage: oid(usage).ok_or(DidX509Error::Usage)?,
            text: text.to_owned(),
        })
    }
}

impl DidX509 {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for DidX509 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for DidX509 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for DidX509 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// Content octets (X.690, 8.19) of an OID in dotted decimal.
fn oid(text: &str) -> Option<Vec<u8>> {
    let mut arcs = text.split('.').map(arc);
    let (first, second) = (arcs.next()??, arcs.next()??);
    if first > 2 || (first < 2 && second > 39) {
        return None;
    }
    let mut content = base_128(second.checked_add(first * 40)?);
    for arc in arcs {
        content.extend(base_128(arc?));
    }
    Some(content)
}

fn arc(text: &str) -> Option<u32> {
    let is_shortest = text == "0" || !text.starts_with('0');
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    (is_shortest && is_decimal)
        .then(|| text.parse().ok())
        .flatten()
}

/// Seven bits an octet, the most significant first, all but the last marked.
fn base_128(arc: u32) -> Vec<u8> {
    let width = (u32::BITS - arc.leading_zeros()).div_ceil(7).max(1);
    let octet = |place: u32| {
        let [septet, ..] = (arc >> (7 * place) & 0x7F).to_le_bytes();
        if place == 0 { septet } else { septet | 0x80 }
    };
    (0..width).rev().map(octet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s";

    #[test]
    fn an_issuer_names_root_and_usage() {
        let text = format!("did:x509:0:sha256:{ROOT}::eku:1.3.6.1.4.1.311.76.59.1.5");
        let did: DidX509 = text.parse().unwrap();
        assert_eq!(
            did.root.to_string(),
            "23ffe2b8bdb9a1711515d4cffda04bc7f793d513c76c243f1020507d8669b7db"
        );
        assert_eq!(hex::encode(&did.usage), "2b0601040182374c3b0105");
        assert_eq!(did.to_string(), text);
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        for (text, error) in [
            (String::new(), DidX509Error::Form),
            (format!("did:x509:0:sha256:{ROOT}"), DidX509Error::Form),
            (
                format!("did:x509:1:sha256:{ROOT}::eku:1.2"),
                DidX509Error::Form,
            ),
            (
                format!("did:x509:0:sha384:{ROOT}::eku:1.2"),
                DidX509Error::Form,
            ),
            (
                format!("did:x509:0:sha256:{ROOT}=::eku:1.2"),
                DidX509Error::Fingerprint,
            ),
            (
                format!("did:x509:0:sha256:{ROOT}A::eku:1.2"),
                DidX509Error::Fingerprint,
            ),
            (
                "did:x509:0:sha256:::eku:1.2".to_owned(),
                DidX509Error::Fingerprint,
            ),
        ] {
            assert_eq!(text.parse::<DidX509>(), Err(error), "{text}");
        }
        // The last two bits of the fingerprint's text carry nothing and must say so.
        let second = format!("did:x509:0:sha256:{}t::eku:1.2", &ROOT[..42]);
        assert_eq!(second.parse::<DidX509>(), Err(DidX509Error::Fingerprint));
        for usage in [
            "",
            "1",
            "1.",
            "1.2.",
            "3.1",
            "1.40",
            "1.02",
            "1.+2",
            "1.2::eku:1.3",
            "1.4294967296",
        ] {
            let text = format!("did:x509:0:sha256:{ROOT}::eku:{usage}");
            assert_eq!(text.parse::<DidX509>(), Err(DidX509Error::Usage), "{text}");
        }
    }

    #[test]
    fn arcs_are_written_in_base_128() {
        assert_eq!(oid("2.999.3"), Some(vec![0x88, 0x37, 0x03]));
        assert_eq!(
            oid("1.2.840.113549"),
            Some(vec![0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D])
        );
        assert_eq!(oid("0.0"), Some(vec![0]));
        assert_eq!(
            oid("2.0.4294967295"),
            Some(vec![80, 0x8F, 0xFF, 0xFF, 0xFF, 0x7F])
        );
    }
}
