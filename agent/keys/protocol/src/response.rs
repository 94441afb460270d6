//! A resource on its way: JWE for one guest's key.
//!
//! Written as `kbs-types` writes it, compact and with `alg` and `enc` first, because it
//! authenticates the header that it writes itself instead of the one it received. Read by
//! [`Jwe`], which authenticates what it received.

use agent_documents::parse_json;
use agent_keys::{
    Jwe, JweError, Secret,
    ecdh::{Parties, derive},
};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::PrivateKey,
    error::Unspecified,
    key_wrap::{AES_256, AesKek, KeyWrap},
    rand,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicKeyComponents},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{TeeKey, TeePublicKey, tee_key::coordinates};

const ENC: &str = "A256GCM";
const CONTENT_KEY_BYTES: usize = 32;
/// RFC 3394 adds one block of 8 bytes.
const WRAPPED_KEY_BYTES: usize = CONTENT_KEY_BYTES + 8;

/// A resource as JWE; all its members are base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The header, in JSON.
    pub protected: String,
    /// The content key, wrapped for the guest's key.
    pub encrypted_key: String,
    /// Of the cipher.
    pub iv: String,
    /// The resource.
    pub ciphertext: String,
    /// Of the cipher.
    pub tag: String,
    /// What else the tag covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<String>,
}

/// Why a resource cannot be sealed: the key is not valid, or there are no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest's key takes no secret, or there are no random numbers")]
pub struct SealError;

impl From<Unspecified> for SealError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// Why a response gives no resource.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not the members of a response.
    #[error("it is not one encrypted response")]
    Json(#[source] serde_json::Error),
    /// Malformed, or it does not open.
    #[error("{0}")]
    Jwe(JweError),
    /// For a key of another kind.
    #[error("it is encrypted with `{0}`, which our key is not for")]
    Algorithm(String),
    /// For a key with a name.
    #[error("it is for a key with a name, but ours has none")]
    KeyId,
}

impl TeeKey {
    /// Opens a response that was sealed for this key.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, json: &[u8]) -> Result<Secret, OpenError> {
        // A JWE has other forms, in which more than the protected header counts.
        let _: Response = parse_json(json).map_err(OpenError::Json)?;
        let jwe = Jwe::parse(json).map_err(OpenError::Jwe)?;
        for recipient in jwe.recipients() {
            if recipient.algorithm() != self.public().algorithm() {
                return Err(OpenError::Algorithm(recipient.algorithm().to_owned()));
            }
            if recipient.key_id().is_some() {
                return Err(OpenError::KeyId);
            }
        }
        let plain = jwe.open(&self.private).map_err(OpenError::Jwe)?;
        Ok(Secret::from(plain))
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    enc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epk: Option<Ephemeral>,
}

#[derive(Serialize)]
struct Ephemeral {
    crv: &'static str,
    kty: &'static str,
    x: String,
    y: String,
}

impl TeePublicKey {
    /// Encrypts a resource for this key.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&self, plain: &[u8]) -> Result<Response, SealError> {
        let mut content_key = Zeroizing::new([0; CONTENT_KEY_BYTES]);
        rand::fill(&mut *content_key)?;
        let (encrypted_key, epk) = self.wrap(&content_key)?;
        let header = Header {
            alg: self.algorithm(),
            enc: ENC,
            epk,
        };
        let protected = encode(&serde_json::to_vec(&header).map_err(|_| SealError)?);
        let mut iv = [0; NONCE_LEN];
        rand::fill(&mut iv)?;
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*content_key)?);
        // Encrypted in place: what it grows into is no secret any more.
        let mut text = plain.to_vec();
        let tag = cipher.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(&protected),
            &mut text,
        )?;
        Ok(Response {
            encrypted_key: encode(&encrypted_key),
            iv: encode(&iv),
            ciphertext: encode(&text),
            tag: encode(tag.as_ref()),
            aad: None,
            protected,
        })
    }

    fn wrap(
        &self,
        content_key: &[u8; CONTENT_KEY_BYTES],
    ) -> Result<(Vec<u8>, Option<Ephemeral>), Unspecified> {
        match self {
            Self::Rsa { n, e } => {
                let key = PublicKeyComponents { n, e }.try_into()?;
                let key = OaepPublicEncryptingKey::new(key)?;
                let mut wrapped = vec![0; key.ciphertext_size()];
                key.encrypt(&OAEP_SHA256_MGF1SHA256, content_key, &mut wrapped, None)?;
                Ok((wrapped, None))
            }
            Self::Ec(curve, point) => {
                let own = PrivateKey::generate(curve.algorithm())?;
                let public = own.compute_public_key()?;
                let (x, y) = coordinates(*curve, public.as_ref());
                let kek = derive::<32>(&own, point, self.algorithm(), &Parties::default());
                let kek = AesKek::new(&AES_256, &*kek.ok_or(Unspecified)?)?;
                let mut wrapped = [0; WRAPPED_KEY_BYTES];
                kek.wrap(content_key, &mut wrapped)?;
                let epk = Ephemeral {
                    crv: curve.name(),
                    kty: "EC",
                    x: encode(x),
                    y: encode(y),
                };
                Ok((wrapped.to_vec(), Some(epk)))
            }
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests;
