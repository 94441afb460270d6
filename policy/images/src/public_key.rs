//! Public keys, which the owner encrypts for.
//!
//! Format: `SubjectPublicKeyInfo` (RFC 5280, section 4.1) in DER or PEM, as
//! `openssl pkey -pubout` writes it.

use std::fmt;

use agent_keys::{
    ecdh::Curve,
    pem::{self, Block},
};
use aws_lc_rs::{
    agreement::{ParsedPublicKey, UnparsedPublicKey},
    rsa::{OaepPublicEncryptingKey, PublicEncryptingKey},
};

/// RSA of 2048 to 8192 bits, or a point on P-256, P-384 or P-521.
pub struct PublicKey(pub(crate) PublicKind);

pub(crate) enum PublicKind {
    Rsa(OaepPublicEncryptingKey),
    Ec(Curve, ParsedPublicKey),
}

/// Why bytes are no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Text, but not one block of a public key.
    #[error("it is not one `PUBLIC KEY` in PEM; `openssl pkey -pubout` writes it")]
    Pem,
    /// Another kind of key, another size, or not what it says it is.
    #[error("it is not a public key that is RSA of 2048 to 8192 bits or on P-256, P-384 or P-521")]
    Rejected,
}

impl PublicKey {
    /// Parses a public key in PEM or DER.
    ///
    /// # Errors
    /// See [`PublicKeyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let Some(text) = pem::text(bytes) else {
            return Self::from_der(bytes);
        };
        let block = Block::only(text).filter(|block| block.label == "PUBLIC KEY");
        let der = block.and_then(|block| block.der());
        Self::from_der(&der.ok_or(PublicKeyError::Pem)?)
    }

    fn from_der(der: &[u8]) -> Result<Self, PublicKeyError> {
        if let Ok(key) = PublicEncryptingKey::from_der(der) {
            let key = OaepPublicEncryptingKey::new(key);
            let key = key.map_err(|_| PublicKeyError::Rejected)?;
            return Ok(Self(PublicKind::Rsa(key)));
        }
        let on = |curve: Curve| {
            let key = UnparsedPublicKey::new(curve.algorithm(), der).try_into();
            Some(Self(PublicKind::Ec(curve, key.ok()?)))
        };
        let key = Curve::ALL.into_iter().find_map(on);
        key.ok_or(PublicKeyError::Rejected)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! vector {
        ($name:literal) => {
            include_str!(concat!("../../../agent/keys/tests/vectors/jwe/", $name))
        };
    }

    #[test]
    fn keys_are_read_in_pem_and_der() {
        for text in [vector!("rsa-2048.pub.pem"), vector!("p521.pub.pem")] {
            let der = Block::only(text).unwrap().der().unwrap();
            for bytes in [text.as_bytes(), &der] {
                let key = PublicKey::parse(bytes).unwrap();
                assert_eq!(format!("{key:?}"), "PublicKey(…)");
            }
        }
    }

    #[test]
    fn other_keys_and_what_is_not_one_whole_key_are_refused() {
        let good = vector!("p256.pub.pem");
        let refusal = |bytes: &[u8]| PublicKey::parse(bytes).err().unwrap();
        for bad in [vector!("p256.pem"), &good.repeat(2), "-----BEGIN "] {
            assert_eq!(refusal(bad.as_bytes()), PublicKeyError::Pem);
        }
        for bad in [vector!("rsa-1024.pub.pem"), vector!("ed25519.pub.pem")] {
            assert_eq!(refusal(bad.as_bytes()), PublicKeyError::Rejected);
        }
        let der = Block::only(good).unwrap().der().unwrap();
        for length in 0..der.len() {
            assert_eq!(refusal(&der[..length]), PublicKeyError::Rejected);
        }
        // On the curve no more.
        let mut off = der.to_vec();
        *off.last_mut().unwrap() ^= 1;
        assert_eq!(refusal(&off), PublicKeyError::Rejected);
    }
}
