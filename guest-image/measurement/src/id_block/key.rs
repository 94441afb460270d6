//! Keys and signatures on P-384 as the secure processor lays them out: little-endian numbers
//! in places that are wider than they need.

use aws_lc_rs::{
    rand::SecureRandom,
    signature::{
        ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::AuthenticationError;
use crate::{
    bytes::{array_at, put, u32_at},
    digest::Sha384Digest,
};

/// Size of a public key.
pub(super) const KEY_BYTES: usize = 1028;
/// Size of a signature.
pub(super) const SIGNATURE_BYTES: usize = 512;

/// Bytes of a number on the curve, and of its place in a key or signature.
const SCALAR: usize = 48;
const SCALAR_PLACE: usize = 72;
const CURVE_P384: u32 = 2;

/// A private key on P-384 of the owner.
#[derive(Debug)]
pub struct SigningKey(EcdsaKeyPair);

/// Why an ID block cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The text is not a private key in PEM form.
    #[error(
        "is not a PEM file with a private key in PKCS#8 form (-----BEGIN PRIVATE KEY-----): convert others with `openssl pkcs8 -topk8 -nocrypt`"
    )]
    Pem,
    /// The key is not on P-384.
    #[error("is not a whole private key on the curve P-384")]
    Key,
    /// There is no randomness.
    #[error("cannot sign: the system gives no random numbers")]
    Random,
}

impl SigningKey {
    /// Reads a private key in PKCS#8 form.
    ///
    /// # Errors
    ///
    /// When the text is not such a key on P-384.
    pub fn from_pem(text: &str) -> Result<Self, SignError> {
        let (_, rest) = text
            .split_once("-----BEGIN PRIVATE KEY-----")
            .ok_or(SignError::Pem)?;
        let (body, _) = rest
            .split_once("-----END PRIVATE KEY-----")
            .ok_or(SignError::Pem)?;
        let body: String = body.split_whitespace().collect();
        let der = BASE64_STANDARD.decode(body).map_err(|_| SignError::Pem)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der);
        key.map(Self).map_err(|_| SignError::Key)
    }

    pub(super) fn public(&self) -> PublicKey {
        // The first byte says that both coordinates follow.
        let point = self.0.public_key().as_ref();
        let coordinates = point.split_first().and_then(|(_, xy)| xy.try_into().ok());
        PublicKey::from_point(coordinates.expect("a P-384 point has two coordinates"))
    }

    pub(super) fn sign(
        &self,
        message: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<Signature, SignError> {
        let signature = self.0.sign(random, message);
        let signature = signature.map_err(|_| SignError::Random)?;
        let numbers = signature.as_ref().try_into();
        Ok(Signature::from_numbers(
            numbers.expect("a P-384 signature has two numbers"),
        ))
    }
}

/// A public key as AMD lays it out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PublicKey(pub(super) [u8; KEY_BYTES]);

impl PublicKey {
    fn from_point(xy: [u8; 2 * SCALAR]) -> Self {
        let mut key = [0; KEY_BYTES];
        put(&mut key, 0, &CURVE_P384.to_le_bytes());
        put(&mut key, 4, &little_endian(xy));
        Self(key)
    }

    pub(super) fn digest(&self) -> Sha384Digest {
        Sha384Digest::of(&self.0)
    }

    pub(super) fn verify(
        &self,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), AuthenticationError> {
        let curve = u32_at(&self.0, 0);
        let point = big_endian(self.0.get(4..).unwrap_or_default());
        let point = point.filter(|_| curve == Some(CURVE_P384));
        let point = point.ok_or(AuthenticationError::Layout)?;
        let numbers = big_endian(&signature.0).ok_or(AuthenticationError::Layout)?;
        let uncompressed = [&[4], point.as_slice()].concat();
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, uncompressed)
            .verify(message, &numbers)
            .map_err(|_| AuthenticationError::Signature)
    }
}

/// A signature as AMD lays it out.
pub(super) struct Signature(pub(super) [u8; SIGNATURE_BYTES]);

impl Signature {
    fn from_numbers(rs: [u8; 2 * SCALAR]) -> Self {
        let mut signature = [0; SIGNATURE_BYTES];
        put(&mut signature, 0, &little_endian(rs));
        Self(signature)
    }
}

/// Two big-endian numbers as two little-endian ones in places of 72 bytes.
fn little_endian(pair: [u8; 2 * SCALAR]) -> [u8; 2 * SCALAR_PLACE] {
    let mut out = [0; 2 * SCALAR_PLACE];
    let (first, second) = pair.split_at(SCALAR);
    for (number, at) in [(first, 0), (second, SCALAR_PLACE)] {
        let reversed: Vec<u8> = number.iter().rev().copied().collect();
        put(&mut out, at, &reversed);
    }
    out
}

/// The reverse; `None` unless all that follows the numbers is zero.
fn big_endian(structure: &[u8]) -> Option<[u8; 2 * SCALAR]> {
    let mut out = [0; 2 * SCALAR];
    for (from, to) in [(0, 0), (SCALAR_PLACE, SCALAR)] {
        let mut number: [u8; SCALAR] = array_at(structure, from)?;
        number.reverse();
        put(&mut out, to, &number);
        let padding = structure.get(from + SCALAR..from + SCALAR_PLACE)?;
        is_zero(padding).then_some(())?;
    }
    let rest = structure.get(2 * SCALAR_PLACE..)?;
    is_zero(rest).then_some(out)
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
