//! Elliptic-curve Diffie-Hellman as JWE uses it: ECDH-ES (RFC 7518, section 4.6). Both
//! sides need it, the guest that opens and the owner who seals.

use aws_lc_rs::{
    agreement::{Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey, agree},
    digest::{Context, SHA256},
};
use zeroize::Zeroizing;

/// A curve of RFC 7518, section 6.2.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl Curve {
    /// All that are supported.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// Its value of `crv`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Length of a coordinate: leading zeros are written (RFC 7518, section 6.2.1.2).
    #[must_use]
    pub fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Its key agreement.
    #[must_use]
    pub fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::P256 => &ECDH_P256,
            Self::P384 => &ECDH_P384,
            Self::P521 => &ECDH_P521,
        }
    }
}

/// What both sides put into the key derivation besides the shared secret.
#[derive(Debug, Clone, Default)]
pub struct Parties {
    /// `apu`, who sends.
    pub sender: Vec<u8>,
    /// `apv`, who receives.
    pub receiver: Vec<u8>,
}

/// The key that a private key and somebody's public point (SEC 1, uncompressed) agree on;
/// none for a point that is not on the curve.
#[must_use]
pub fn derive<const N: usize>(
    own: &PrivateKey,
    point: &[u8],
    algorithm: &str,
    parties: &Parties,
) -> Option<Zeroizing<[u8; N]>> {
    let peer = UnparsedPublicKey::new(own.algorithm(), point);
    agree(own, peer, (), |secret| {
        Ok(concat_kdf(secret, algorithm, parties))
    })
    .ok()
}

/// Concat KDF with SHA-256 (NIST SP 800-56A, section 5.8.1, with the `OtherInfo` of
/// RFC 7518, section 4.6.2); one round gives all that is asked for.
fn concat_kdf<const N: usize>(
    secret: &[u8],
    algorithm: &str,
    parties: &Parties,
) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 32, "one round of SHA-256 gives 32 bytes") };
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut hash = Context::new(&SHA256);
    hash.update(&1_u32.to_be_bytes());
    hash.update(secret);
    for field in [algorithm.as_bytes(), &parties.sender, &parties.receiver] {
        hash.update(&length(field));
        hash.update(field);
    }
    // In bits; `N` is 32 at most.
    hash.update(&(N as u32 * 8).to_be_bytes());
    let mut key = Zeroizing::new([0; N]);
    for (to, from) in key.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    key
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    /// RFC 7518, appendix C: Bob's key, Alice's ephemeral one, and what they agree on.
    #[test]
    fn the_example_of_rfc_7518_derives_its_key() {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let bob = decode("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw");
        let bob = PrivateKey::from_private_key(&ECDH_P256, &bob).unwrap();
        let alice = [
            vec![4],
            decode("gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0"),
            decode("SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps"),
        ]
        .concat();
        let parties = Parties {
            sender: b"Alice".to_vec(),
            receiver: b"Bob".to_vec(),
        };
        let key = derive::<16>(&bob, &alice, "A128GCM", &parties).unwrap();
        assert_eq!(*key, decode("VqqN6vgjbSBcIijNcacQGg")[..]);
        for (algorithm, parties) in [
            ("A128GCM", Parties::default()),
            ("A256GCM", parties.clone()),
        ] {
            assert_ne!(
                *derive::<16>(&bob, &alice, algorithm, &parties).unwrap(),
                *key
            );
        }
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_agrees_on_nothing() {
        let own = PrivateKey::generate(&ECDH_P256).unwrap();
        let public = own.compute_public_key().unwrap();
        let mut point = public.as_ref().to_vec();
        let derive = |point: &[u8]| derive::<32>(&own, point, "x", &Parties::default());
        assert!(derive(&point).is_some());
        point[64] ^= 1;
        assert!(derive(&point).is_none());
        assert!(derive(&[]).is_none() && derive(&[0]).is_none());
    }
}
