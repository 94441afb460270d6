//! Private keys, which open what was encrypted for their public halves.
//!
//! Such a key is long-lived, and whoever has it once can open everything that was ever
//! encrypted for it; a key that a provider releases on proof is better where there is the
//! choice. The keys themselves are the owner's, but come from files and brokers and are
//! parsed as what anybody may have written. *aws-lc-rs* keeps them, and erases them when
//! they are dropped.
//!
//! Formats: PKCS#8 (RFC 5958) in DER or PEM (RFC 7468), and for elliptic curves the older
//! `EC PRIVATE KEY` (RFC 5915).

use std::fmt;

use aws_lc_rs::{
    agreement,
    error::Unspecified,
    rsa::{OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use zeroize::Zeroizing;

use crate::{
    ecdh::Curve,
    pem::{self, Block},
};

/// RSA of 8192 bits takes 6400 bytes in PEM.
const BYTES_MAX: usize = 16 << 10;

/// An RSA key of 2048 to 8192 bits, or one on P-256, P-384 or P-521.
pub struct PrivateKey(Kind);

enum Kind {
    Rsa(OaepPrivateDecryptingKey),
    Ec(Curve, agreement::PrivateKey),
}

/// Why bytes are no private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateKeyError {
    /// Longer than any key.
    #[error("it is longer than {BYTES_MAX} bytes")]
    Length,
    /// Text, but not one block of a private key.
    #[error("it is not one private key in PEM")]
    Pem,
    /// Protected by a password.
    #[error("it is encrypted with a password; take that off with `openssl pkcs8 -topk8 -nocrypt`")]
    Encrypted,
    /// The older form of RSA.
    #[error("it is an RSA key in PKCS#1; convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    Pkcs1,
    /// Another kind of key, another size, or not what it says it is.
    #[error(
        "it is not a private key in PKCS#8 that is RSA of 2048 to 8192 bits or on P-256, P-384 \
         or P-521"
    )]
    Rejected,
}

impl PrivateKey {
    /// Parses a private key in PEM or DER.
    ///
    /// # Errors
    /// See [`PrivateKeyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PrivateKeyError> {
        if bytes.len() > BYTES_MAX {
            return Err(PrivateKeyError::Length);
        }
        match pem::text(bytes) {
            Some(text) => Self::from_der(&content(text)?),
            None => Self::from_der(bytes),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, PrivateKeyError> {
        if let Ok(key) = PrivateDecryptingKey::from_pkcs8(der) {
            let key = OaepPrivateDecryptingKey::new(key);
            let key = key.map_err(|_| PrivateKeyError::Rejected)?;
            return Ok(Self(Kind::Rsa(key)));
        }
        let on = |curve: Curve| {
            let key = agreement::PrivateKey::from_private_key_der(curve.algorithm(), der);
            Some(Self(Kind::Ec(curve, key.ok()?)))
        };
        let key = Curve::ALL.into_iter().find_map(on);
        key.ok_or(PrivateKeyError::Rejected)
    }

    /// Makes a key on a curve; gives its public point too (SEC 1, uncompressed).
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate(curve: Curve) -> Result<(Self, Vec<u8>), Unspecified> {
        let key = agreement::PrivateKey::generate(curve.algorithm())?;
        let point = key.compute_public_key()?.as_ref().to_vec();
        Ok((Self(Kind::Ec(curve, key)), point))
    }

    /// The key, if it is an RSA one.
    pub(crate) fn rsa(&self) -> Option<&OaepPrivateDecryptingKey> {
        match &self.0 {
            Kind::Rsa(key) => Some(key),
            Kind::Ec(..) => None,
        }
    }

    /// The key, if it is on that curve.
    pub(crate) fn on(&self, curve: Curve) -> Option<&agreement::PrivateKey> {
        match &self.0 {
            Kind::Ec(own, key) if *own == curve => Some(key),
            _ => None,
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// The content of the one block that is a private key.
fn content(text: &str) -> Result<Zeroizing<Vec<u8>>, PrivateKeyError> {
    let block = Block::only(text).ok_or(PrivateKeyError::Pem)?;
    match block.label {
        _ if block.is_encrypted() => Err(PrivateKeyError::Encrypted),
        "RSA PRIVATE KEY" => Err(PrivateKeyError::Pkcs1),
        "PRIVATE KEY" | "EC PRIVATE KEY" => block.der().ok_or(PrivateKeyError::Pem),
        _ => Err(PrivateKeyError::Pem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Jwe;

    macro_rules! vector {
        ($name:literal) => {
            include_str!(concat!("../tests/vectors/jwe/", $name))
        };
    }

    const KEYS: [(&str, &str); 5] = [
        (vector!("rsa-2048.pem"), vector!("rsa-2048.json")),
        (vector!("p256.pem"), vector!("p256.json")),
        (vector!("p256-sec1.pem"), vector!("p256.json")),
        (vector!("p384.pem"), vector!("p384.json")),
        (vector!("p521.pem"), vector!("p521.json")),
    ];

    fn refusal(bytes: &[u8]) -> PrivateKeyError {
        PrivateKey::parse(bytes).err().unwrap()
    }

    #[test]
    fn keys_are_read_in_pem_and_der_and_open_what_is_theirs() {
        for (text, jwe) in KEYS {
            let jwe = Jwe::parse(jwe.as_bytes()).unwrap();
            for bytes in [text.as_bytes(), &content(text).unwrap()] {
                let key = PrivateKey::parse(bytes).unwrap();
                assert!(jwe.open(&key).is_ok());
                assert_eq!(format!("{key:?}"), "PrivateKey(…)");
            }
        }
    }

    #[test]
    fn encrypted_keys_and_pkcs1_are_refused_with_what_to_do() {
        for (text, error) in [
            (vector!("encrypted.pem"), PrivateKeyError::Encrypted),
            (vector!("encrypted-pkcs1.pem"), PrivateKeyError::Encrypted),
            (vector!("rsa-pkcs1.pem"), PrivateKeyError::Pkcs1),
        ] {
            assert_eq!(refusal(text.as_bytes()), error);
            assert!(error.to_string().contains("openssl pkcs8 -topk8 -nocrypt"));
        }
    }

    #[test]
    fn small_and_other_keys_are_refused() {
        for text in [vector!("rsa-1024.pem"), vector!("ed25519.pem")] {
            assert_eq!(refusal(text.as_bytes()), PrivateKeyError::Rejected);
        }
    }

    #[test]
    fn what_is_not_one_whole_key_is_refused() {
        let (good, _) = KEYS[1];
        for bad in [
            good.repeat(2),
            good.replace("PRIVATE", "PUBLIC"),
            good.replacen("-----END", "-----ENDE", 1),
            good.replacen("\n", "\n?", 1),
            "-----BEGIN ".to_owned(),
        ] {
            assert_eq!(refusal(bad.as_bytes()), PrivateKeyError::Pem, "{bad}");
        }
        assert_eq!(refusal(&[0; BYTES_MAX + 1]), PrivateKeyError::Length);
        let der = content(good).unwrap();
        for length in 0..der.len() {
            assert_eq!(refusal(&der[..length]), PrivateKeyError::Rejected);
        }
        // No private key in it, but a curve.
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        assert_eq!(refusal(parameters.as_bytes()), PrivateKeyError::Pem);
    }
}
