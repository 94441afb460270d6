//! The guest's key, which resources are sealed for: private in the guest, public as JWK
//! (RFC 7517).
//!
//! A public key is parsed strictly, so that what is written of it is what was read: both
//! sides hash the same bytes ([`report_data`](crate::report_data)).

use agent_keys::{PrivateKey, ecdh::Curve};
use aws_lc_rs::error::Unspecified;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// `alg` of keys on elliptic curves.
pub(crate) const ECDH_ES_A256KW: &str = "ECDH-ES+A256KW";
/// `alg` of RSA keys.
pub(crate) const RSA_OAEP_256: &str = "RSA-OAEP-256";
/// RSA of 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const EXPONENT_BYTES: std::ops::RangeInclusive<usize> = 1..=8;

/// The guest's key: made when it boots, and never written anywhere. *aws-lc-rs* keeps it, and
/// erases it when it is dropped.
pub struct TeeKey {
    pub(crate) private: PrivateKey,
    public: TeePublicKey,
}

impl TeeKey {
    /// Makes a key on P-256.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate() -> Result<Self, Unspecified> {
        let (private, point) = PrivateKey::generate(Curve::P256)?;
        let public = TeePublicKey::Ec(Curve::P256, point);
        Ok(Self { private, public })
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &TeePublicKey {
        &self.public
    }

    #[cfg(test)]
    pub(crate) fn of(private: PrivateKey, public: TeePublicKey) -> Self {
        Self { private, public }
    }
}

/// A guest's public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Jwk", into = "Jwk")]
#[non_exhaustive]
pub enum TeePublicKey {
    /// A point on P-256 or P-521: SEC 1, uncompressed.
    Ec(Curve, Vec<u8>),
    /// An RSA key of 2048 to 8192 bits.
    Rsa {
        /// Its modulus.
        n: Vec<u8>,
        /// Its exponent.
        e: Vec<u8>,
    },
}

/// Why a JWK is not a guest's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the guest's key is neither on P-256 or P-521 with {ECDH_ES_A256KW} nor RSA of 2048 to 8192 \
     bits with {RSA_OAEP_256}, or is not canonical"
)]
pub struct TeePublicKeyError;

impl TeePublicKey {
    /// How content keys are wrapped for it.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(..) => ECDH_ES_A256KW,
            Self::Rsa { .. } => RSA_OAEP_256,
        }
    }
}

/// Members in alphabetical order, as the digest wants them. No member is left out or unknown.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kty", deny_unknown_fields)]
enum Tagged {
    #[serde(rename = "EC")]
    Ec {
        alg: String,
        crv: String,
        x: String,
        y: String,
    },
    #[serde(rename = "RSA")]
    Rsa { alg: String, e: String, n: String },
}

/// A [`Tagged`] whose `kty` is written where the alphabet has it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Jwk(Tagged);

impl Serialize for Jwk {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Ec<'a> {
            alg: &'a str,
            crv: &'a str,
            kty: &'a str,
            x: &'a str,
            y: &'a str,
        }
        #[derive(Serialize)]
        struct Rsa<'a> {
            alg: &'a str,
            e: &'a str,
            kty: &'a str,
            n: &'a str,
        }
        match &self.0 {
            Tagged::Ec { alg, crv, x, y } => Ec {
                alg,
                crv,
                kty: "EC",
                x,
                y,
            }
            .serialize(serializer),
            Tagged::Rsa { alg, e, n } => Rsa {
                alg,
                e,
                kty: "RSA",
                n,
            }
            .serialize(serializer),
        }
    }
}

impl From<&TeePublicKey> for Jwk {
    fn from(key: &TeePublicKey) -> Self {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let alg = key.algorithm().to_owned();
        Self(match key {
            TeePublicKey::Ec(curve, point) => {
                let (x, y) = coordinates(*curve, point);
                Tagged::Ec {
                    alg,
                    crv: curve.name().to_owned(),
                    x: encode(x),
                    y: encode(y),
                }
            }
            TeePublicKey::Rsa { n, e } => Tagged::Rsa {
                alg,
                e: encode(e),
                n: encode(n),
            },
        })
    }
}

/// Both coordinates of a point in SEC 1, uncompressed.
pub(crate) fn coordinates(curve: Curve, point: &[u8]) -> (&[u8], &[u8]) {
    let point = point.get(1..).unwrap_or_default();
    point
        .split_at_checked(curve.coordinate_bytes())
        .unwrap_or_default()
}

impl From<TeePublicKey> for Jwk {
    fn from(key: TeePublicKey) -> Self {
        Self::from(&key)
    }
}

impl TryFrom<Jwk> for TeePublicKey {
    type Error = TeePublicKeyError;

    fn try_from(jwk: Jwk) -> Result<Self, TeePublicKeyError> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TeePublicKeyError);
        let key = match &jwk.0 {
            Tagged::Ec { alg, crv, x, y } if alg == ECDH_ES_A256KW => {
                let mut curves = [Curve::P256, Curve::P521].into_iter();
                let curve = curves.find(|curve| curve.name() == crv);
                let curve = curve.ok_or(TeePublicKeyError)?;
                let (x, y) = (decode(x)?, decode(y)?);
                if [x.len(), y.len()] != [curve.coordinate_bytes(); 2] {
                    return Err(TeePublicKeyError);
                }
                Self::Ec(curve, [vec![4], x, y].concat())
            }
            Tagged::Rsa { alg, e, n } if alg == RSA_OAEP_256 => {
                let (n, e) = (decode(n)?, decode(e)?);
                // A leading zero would be a second way to write the same number.
                let canonical = n.first() != Some(&0) && e.first() != Some(&0);
                let fits = RSA_BYTES.contains(&n.len()) && EXPONENT_BYTES.contains(&e.len());
                if !canonical || !fits {
                    return Err(TeePublicKeyError);
                }
                Self::Rsa { n, e }
            }
            _ => return Err(TeePublicKeyError),
        };
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(jwk: &Value) -> Result<TeePublicKey, serde_json::Error> {
        serde_json::from_value(jwk.clone())
    }

    #[test]
    fn what_is_read_is_what_is_written() {
        let key = TeeKey::generate().unwrap();
        let jwk = serde_json::to_value(key.public()).unwrap();
        assert_eq!(&parse(&jwk).unwrap(), key.public());
        for (member, value) in [
            ("kty", json!("RSA")),
            ("kty", json!("AKP")),
            ("alg", json!("RSA1_5")),
            ("alg", Value::Null),
            ("crv", json!("P-384")),
            ("crv", json!("P-521")),
            ("x", json!("AAAA")),
            ("x", json!("?")),
            ("d", json!("AAAA")),
        ] {
            let mut bad = jwk.clone();
            bad[member] = value;
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn small_rsa_keys_and_leading_zeros_are_refused() {
        let rsa = |n: Vec<u8>, e: &[u8]| {
            let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            parse(&json!({"kty": "RSA", "alg": RSA_OAEP_256, "n": encode(&n), "e": encode(e)}))
        };
        assert!(rsa(vec![255; 256], &[1, 0, 1]).is_ok());
        for (n, e) in [
            (vec![255; 128], &[1, 0, 1][..]),
            (vec![255; 1025], &[1, 0, 1]),
            (vec![0; 256], &[1, 0, 1]),
            (vec![255; 256], &[0, 1]),
            (vec![255; 256], &[]),
        ] {
            assert!(rsa(n, e).is_err());
        }
    }
}
