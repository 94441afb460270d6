//! Digest and public-key algorithms by their OpenPGP numbers, computed by *aws-lc-rs*
//! (RFC 9580, sections 9.1, 9.2, 9.5 and 5.2.3).

use aws_lc_rs::{
    digest::{self, digest},
    signature::{
        self as algorithms, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1,
        ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

use super::{cursor::Cursor, error::OpenPgpError};

const RSA: u8 = 1;
const RSA_SIGN_ONLY: u8 = 3;
const ECDSA: u8 = 19;
const EDDSA_LEGACY: u8 = 22;
const ED25519_NATIVE: u8 = 27;

const CURVE_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const CURVE_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const CURVE_ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// Longer RSA keys are slow to verify, and *aws-lc-rs* refuses them.
const RSA_MIN_BITS: usize = 2048;
const RSA_MAX_BITS: usize = 8192;

/// A digest that is long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) fn parse(number: u8) -> Result<Self, OpenPgpError> {
        match number {
            8 => Ok(Self::Sha256),
            9 => Ok(Self::Sha384),
            10 => Ok(Self::Sha512),
            1 => Err(OpenPgpError::WeakDigest("MD5")),
            2 => Err(OpenPgpError::WeakDigest("SHA-1")),
            3 => Err(OpenPgpError::WeakDigest("RIPEMD-160")),
            11 => Err(OpenPgpError::WeakDigest("SHA-224")),
            other => Err(OpenPgpError::Unsupported(format!(
                "digest algorithm {other}"
            ))),
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// A public key's numbers.
#[derive(Debug, Clone)]
pub(super) enum Public {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    /// One that verifies nothing here.
    Unsupported(&'static str),
}

impl Public {
    /// Reads the algorithm-specific part of a key packet, to its end.
    pub(super) fn parse(algorithm: u8, bytes: &[u8]) -> Result<Self, OpenPgpError> {
        let mut cursor = Cursor::new(bytes);
        let key = Self::read(algorithm, &mut cursor)
            .ok_or(OpenPgpError::Malformed("a key's numbers are broken"))?;
        if matches!(key, Self::Unsupported(_)) || cursor.is_empty() {
            Ok(key)
        } else {
            Err(OpenPgpError::Malformed(
                "a key is followed by something else",
            ))
        }
    }

    fn read(algorithm: u8, cursor: &mut Cursor<'_>) -> Option<Self> {
        Some(match algorithm {
            RSA | RSA_SIGN_ONLY => {
                let (modulus, exponent) = (mpi(cursor)?.to_vec(), mpi(cursor)?.to_vec());
                match bits(&modulus) {
                    ..RSA_MIN_BITS => Self::Unsupported("RSA of less than 2048 bits"),
                    RSA_MIN_BITS..=RSA_MAX_BITS => Self::Rsa { modulus, exponent },
                    _ => Self::Unsupported("RSA of more than 8192 bits"),
                }
            }
            ECDSA => {
                let length = usize::from(cursor.u8()?);
                let curve = cursor.take(length)?;
                let point = mpi(cursor)?.to_vec();
                match (curve, point.len()) {
                    (CURVE_P256, 65) => Self::P256(point),
                    (CURVE_P384, 97) => Self::P384(point),
                    (CURVE_P256 | CURVE_P384, _) => return None,
                    _ => Self::Unsupported("ECDSA on a curve other than P-256 and P-384"),
                }
            }
            EDDSA_LEGACY => {
                let length = usize::from(cursor.u8()?);
                let curve = cursor.take(length)?;
                match (curve, mpi(cursor)?) {
                    (CURVE_ED25519, [0x40, point @ ..]) if point.len() == 32 => {
                        Self::Ed25519(point.to_vec())
                    }
                    (CURVE_ED25519, _) => return None,
                    _ => Self::Unsupported("EdDSA on a curve other than Ed25519"),
                }
            }
            ED25519_NATIVE => Self::Ed25519(cursor.take(32)?.to_vec()),
            2 => Self::Unsupported("RSA for encryption only"),
            16 => Self::Unsupported("Elgamal"),
            17 => Self::Unsupported("DSA"),
            18 => Self::Unsupported("ECDH"),
            25 => Self::Unsupported("X25519"),
            _ => Self::Unsupported("an unknown algorithm"),
        })
    }

    /// Whether a signature over this message is this key's.
    pub(super) fn verifies(
        &self,
        hash: Hash,
        message: &[u8],
        proof: &Proof,
    ) -> Result<bool, OpenPgpError> {
        let result = match (self, proof) {
            (Self::Rsa { modulus, exponent }, Proof::Rsa(number)) => {
                let key = RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                let Some(padded) = padded(number, modulus.len()) else {
                    return Ok(false);
                };
                let scheme = match hash {
                    Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                };
                key.verify(scheme, message, &padded)
            }
            (Self::P256(point) | Self::P384(point), Proof::Pair(EcPair::Ecdsa, r, s)) => {
                let scheme: &dyn VerificationAlgorithm = match (self, hash) {
                    (Self::P256(_), Hash::Sha256) => &ECDSA_P256_SHA256_ASN1,
                    (Self::P256(_), Hash::Sha384) => &ECDSA_P256_SHA384_ASN1,
                    (_, Hash::Sha256) => &ECDSA_P384_SHA256_ASN1,
                    (_, Hash::Sha384) => &ECDSA_P384_SHA384_ASN1,
                    (_, Hash::Sha512) => {
                        return Err(OpenPgpError::Unsupported("ECDSA with SHA-512".to_owned()));
                    }
                };
                UnparsedPublicKey::new(scheme, point).verify(message, &der(r, s))
            }
            (Self::Ed25519(point), Proof::Pair(EcPair::EdDsa, r, s)) => {
                let (Some(r), Some(s)) = (padded(r, 32), padded(s, 32)) else {
                    return Ok(false);
                };
                ed25519(point, hash, message, &[r, s].concat())
            }
            (Self::Ed25519(point), Proof::Native(proof)) => ed25519(point, hash, message, proof),
            (Self::Unsupported(name), _) => {
                return Err(OpenPgpError::Unsupported((*name).to_owned()));
            }
            _ => {
                return Err(OpenPgpError::Malformed(
                    "key and signature are of different algorithms",
                ));
            }
        };
        Ok(result.is_ok())
    }
}

/// OpenPGP signs the digest with Ed25519, not the message.
fn ed25519(
    point: &[u8],
    hash: Hash,
    message: &[u8],
    proof: &[u8],
) -> Result<(), aws_lc_rs::error::Unspecified> {
    let hashed = digest(hash.algorithm(), message);
    algorithms::UnparsedPublicKey::new(&ED25519, point).verify(hashed.as_ref(), proof)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EcPair {
    Ecdsa,
    EdDsa,
}

/// A signature's numbers.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    Rsa(Vec<u8>),
    Pair(EcPair, Vec<u8>, Vec<u8>),
    Native(Vec<u8>),
    /// Of an algorithm that is not supported.
    Unsupported,
}

impl Proof {
    /// Reads the algorithm-specific part of a signature packet, to its end.
    pub(super) fn parse(algorithm: u8, bytes: &[u8]) -> Result<Self, OpenPgpError> {
        let mut cursor = Cursor::new(bytes);
        let mut read = || {
            let cursor = &mut cursor;
            Some(match algorithm {
                RSA | RSA_SIGN_ONLY => Self::Rsa(mpi(cursor)?.to_vec()),
                ECDSA => Self::Pair(EcPair::Ecdsa, mpi(cursor)?.to_vec(), mpi(cursor)?.to_vec()),
                EDDSA_LEGACY => {
                    Self::Pair(EcPair::EdDsa, mpi(cursor)?.to_vec(), mpi(cursor)?.to_vec())
                }
                ED25519_NATIVE => Self::Native(cursor.take(64)?.to_vec()),
                _ => {
                    cursor.rest();
                    Self::Unsupported
                }
            })
        };
        let proof = read().ok_or(OpenPgpError::Malformed("a signature's numbers are broken"))?;
        if cursor.is_empty() {
            Ok(proof)
        } else {
            Err(OpenPgpError::Malformed(
                "a signature is followed by something else",
            ))
        }
    }
}

/// A number: its length in bits, then its bytes without leading zero bits (section 3.2).
fn mpi<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let stated = usize::from(cursor.u16()?);
    let bytes = cursor.take(stated.div_ceil(8))?;
    (bits(bytes) == stated).then_some(bytes)
}

/// Length in bits of a number that has no leading zero byte.
fn bits(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(first) if *first != 0 => bytes.len() * 8 - first.leading_zeros() as usize,
        _ => 0,
    }
}

/// The number with leading zeros, as long as its key.
fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(number.len())?;
    let mut padded = vec![0; zeros];
    padded.extend_from_slice(number);
    Some(padded)
}

/// `SEQUENCE { INTEGER r, INTEGER s }`; numbers too long for any curve make nonsense, which verifies nothing.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for number in [r, s] {
        let sign = number.first().is_none_or(|first| first & 0x80 != 0);
        let length = number.len() + usize::from(sign);
        body.extend([0x02, u8::try_from(length).unwrap_or(0)]);
        body.extend(sign.then_some(0));
        body.extend_from_slice(number);
    }
    let mut sequence = vec![0x30, u8::try_from(body.len()).unwrap_or(0)];
    sequence.append(&mut body);
    sequence
}
