//! The public keys of certificates.

use super::der::{Der, DerError, SEQUENCE};

/// `AlgorithmIdentifier` of an RSA key (RFC 3279, 2.3.1).
const RSA_KEY: &[u8] = &[
    0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// `AlgorithmIdentifier` of a key on P-384 (RFC 5480, 2.1).
const P384_KEY: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x05, 0x2B, 0x81, 0x04,
    0x00, 0x22,
];

/// A key that an authority or a chip signs with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// A DER `RSAPublicKey`.
    Rsa(Vec<u8>),
    /// An uncompressed point.
    P384([u8; 97]),
}

impl PublicKey {
    /// Whether it is an RSA key with a modulus of exactly so many bits.
    pub(crate) fn is_rsa_of(&self, bits: usize) -> bool {
        match self {
            Self::Rsa(key) => modulus_bits(key).is_ok_and(|found| found == bits),
            Self::P384(_) => false,
        }
    }

    /// Reads `SubjectPublicKeyInfo`; `None` if it is of another kind.
    pub(super) fn read(body: &mut Der<'_>) -> Result<Option<Self>, DerError> {
        let mut info = body.open(SEQUENCE)?;
        let algorithm = info.element(SEQUENCE)?.encoded;
        let key = info.octets_of_bit_string()?;
        info.finish()?;
        match algorithm {
            RSA_KEY => Ok(Some(Self::Rsa(key.to_vec()))),
            P384_KEY => match <[u8; 97]>::try_from(key) {
                Ok(point @ [0x04, ..]) => Ok(Some(Self::P384(point))),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// Size of the modulus in an `RSAPublicKey` (RFC 8017, A.1.1).
fn modulus_bits(key: &[u8]) -> Result<usize, DerError> {
    let mut outer = Der::new(key);
    let mut key = outer.open(SEQUENCE)?;
    outer.finish()?;
    let modulus = key.unsigned()?;
    let unused = modulus.first().map_or(0, |first| first.leading_zeros());
    Ok(modulus.len() * 8 - usize::try_from(unused).unwrap_or_default())
}
