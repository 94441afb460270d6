//! Public keys as cosign writes them: one `PUBLIC KEY` block in PEM.
//!
//! Format: `SubjectPublicKeyInfo` of RFC 5280, section 4.1, in DER, with the algorithms
//! of RFC 8017, RFC 5480 and RFC 8410. The keys are the owner's, what they verify is
//! not; *aws-lc-rs* does the mathematics.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    ed25519ph,
    openpgp::{Cursor, pem_body},
};

const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A way that a key signs.
enum Scheme {
    Whole(&'static dyn VerificationAlgorithm),
    Ed25519ph,
}

type Schemes = &'static [Scheme];

/// cosign signs with SHA-256 under every curve in tags, but in bundles with the
/// digest that belongs to the curve, also under Ed25519.
static P256: [Scheme; 1] = [Scheme::Whole(&ECDSA_P256_SHA256_ASN1)];
static P384: [Scheme; 2] = [
    Scheme::Whole(&ECDSA_P384_SHA256_ASN1),
    Scheme::Whole(&ECDSA_P384_SHA384_ASN1),
];
static EDWARDS: [Scheme; 2] = [Scheme::Whole(&ED25519), Scheme::Ed25519ph];
static RSA: [Scheme; 2] = [
    Scheme::Whole(&RSA_PKCS1_2048_8192_SHA256),
    Scheme::Whole(&RSA_PSS_2048_8192_SHA256),
];

/// A key that cosign's signatures are verified with.
#[derive(Clone)]
pub(super) struct PublicKey {
    schemes: Schemes,
    bits: Vec<u8>,
    name: String,
}

/// Why some bytes are no public key.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublicKeyError {
    /// Not exactly one PEM block of the right name.
    #[error("it is not one `PUBLIC KEY` block in PEM")]
    Pem,
    /// Not what the block's name promises.
    #[error("its content is not a public key")]
    Der,
    /// A key that is not supported.
    #[error("its algorithm is not supported: {0}")]
    Algorithm(&'static str),
}

impl PublicKey {
    pub(super) fn parse(pem: &[u8]) -> Result<Self, PublicKeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| PublicKeyError::Pem)?;
        let der = pem_body(text, "PUBLIC KEY").ok_or(PublicKeyError::Pem)?;
        let (schemes, bits) = read(&der)?;
        Ok(Self {
            schemes,
            bits: bits.to_vec(),
            name: STANDARD.encode(digest(&SHA256, &der)),
        })
    }

    #[cfg(test)]
    pub(super) fn of_p256(point: &[u8]) -> Self {
        Self {
            schemes: &P256,
            bits: point.to_vec(),
            name: "test".to_owned(),
        }
    }

    #[cfg(test)]
    pub(super) fn of_ed25519(point: &[u8]) -> Self {
        Self {
            schemes: &EDWARDS,
            ..Self::of_p256(point)
        }
    }

    /// Base64 of the key's SHA-256, as bundles hint at it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.schemes.iter().any(|scheme| match scheme {
            Scheme::Whole(algorithm) => UnparsedPublicKey::new(*algorithm, &self.bits)
                .verify(message, signature)
                .is_ok(),
            Scheme::Ed25519ph => match (self.bits.as_array(), signature.as_array()) {
                (Some(key), Some(signature)) => ed25519ph::verifies(key, message, signature),
                _ => false,
            },
        })
    }
}

fn read(der: &[u8]) -> Result<(Schemes, &[u8]), PublicKeyError> {
    let parts = || {
        let mut whole = Cursor::new(der);
        let mut info = Cursor::new(element(&mut whole, SEQUENCE)?);
        let mut algorithm = Cursor::new(element(&mut info, SEQUENCE)?);
        let oid = element(&mut algorithm, OID)?;
        let bits = element(&mut info, BIT_STRING)?.strip_prefix(&[0])?;
        (whole.is_empty() && info.is_empty()).then_some((oid, algorithm, bits))
    };
    let (oid, mut parameters, bits) = parts().ok_or(PublicKeyError::Der)?;
    match oid {
        OID_EC => match element(&mut parameters, OID).filter(|_| parameters.is_empty()) {
            Some(OID_P256) if bits.len() == 65 => Ok((&P256, bits)),
            Some(OID_P384) if bits.len() == 97 => Ok((&P384, bits)),
            Some(OID_P256 | OID_P384) | None => Err(PublicKeyError::Der),
            Some(_) => Err(PublicKeyError::Algorithm(
                "ECDSA on a curve other than P-256 and P-384",
            )),
        },
        OID_ED25519 if parameters.is_empty() && bits.len() == 32 => Ok((&EDWARDS, bits)),
        OID_RSA if parameters.rest() == [0x05, 0x00] => {
            let modulus = modulus(bits).ok_or(PublicKeyError::Der)?;
            match modulus.len() {
                length if RSA_BYTES.contains(&length) => Ok((&RSA, bits)),
                _ => Err(PublicKeyError::Algorithm(
                    "RSA of less than 2048 or more than 8192 bits",
                )),
            }
        }
        OID_ED25519 | OID_RSA => Err(PublicKeyError::Der),
        _ => Err(PublicKeyError::Algorithm(
            "neither ECDSA nor Ed25519 nor RSA",
        )),
    }
}

/// `SEQUENCE { INTEGER modulus, INTEGER exponent }`
fn modulus(bits: &[u8]) -> Option<&[u8]> {
    let mut whole = Cursor::new(bits);
    let mut numbers = Cursor::new(element(&mut whole, SEQUENCE)?);
    element(&mut numbers, INTEGER)?.strip_prefix(&[0])
}

/// The content of the next element, which must have this tag and the shortest length.
fn element<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Option<&'a [u8]> {
    if cursor.u8()? != tag {
        return None;
    }
    let length = match cursor.u8()? {
        short @ ..=0x7f => usize::from(short),
        0x81 => usize::from(cursor.u8().filter(|length| *length >= 0x80)?),
        0x82 => usize::from(cursor.u16().filter(|length| *length >= 0x100)?),
        _ => return None,
    };
    cursor.take(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        std::fs::read(folder.join(name)).unwrap()
    }

    #[test]
    fn keys_of_all_supported_algorithms_are_read() {
        for name in ["p256", "p384", "ed25519", "rsa"] {
            PublicKey::parse(&vector(&format!("{name}.pem"))).unwrap();
        }
        assert!(matches!(
            PublicKey::parse(&vector("p521.pem")),
            Err(PublicKeyError::Algorithm(_))
        ));
    }

    #[test]
    fn what_is_not_one_whole_key_is_refused() {
        let text = String::from_utf8(vector("p256.pem")).unwrap();
        for bad in ["", "x", &text.repeat(2), &text.replace("PUBLIC", "PRIVATE")] {
            assert!(
                matches!(PublicKey::parse(bad.as_bytes()), Err(PublicKeyError::Pem)),
                "{bad}"
            );
        }
        let der = pem_body(&text, "PUBLIC KEY").unwrap();
        for length in 0..der.len() {
            assert!(read(&der[..length]).is_err(), "{length}");
        }
        assert!(read(&[&der[..], &[0]].concat()).is_err());
    }
}
