//! JSON Web Encryption: a secret encrypted for the holders of private keys.
//!
//! Read are both JSON serialisations, general and flattened (RFC 7516, section 7.2);
//! content encryption `A256GCM`; a content key wrapped by `RSA-OAEP`, `RSA-OAEP-256` or
//! `ECDH-ES+A256KW` on P-256, P-384 and P-521 (RFC 7518, sections 4 and 5). Recipients
//! of other algorithms are passed over: the others need not suffer from them.
//!
//! Whoever wrote the bytes is hostile until the tag has matched. Everything is bounded
//! and parsed once, so that what is left can only open or not; and that it does not open
//! is all that is told, whatever the reason: which of padding, key wrap and tag failed is
//! what an attacker who may try again would like to know. For the same reason a content
//! key that does not unwrap is replaced by a random one (RFC 7516, section 11.5).
//!
//! Refused though valid: `crit` and `zip`, which nobody here understands (a compressed
//! plaintext tells of itself by its length), and an `enc` that is not protected.

mod json;
mod recipient;

use std::collections::BTreeSet;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use json::{Members, Node};
pub use recipient::JweRecipient;
use recipient::{ContentKey, recipients};
use zeroize::Zeroizing;

use crate::{LengthError, PrivateKey, length::exactly};

/// Longer ones are not looked into.
const BYTES_MAX: usize = 4 << 20;
const ENC: &str = "A256GCM";
/// RFC 7518, section 5.3.
const TAG_BYTES: usize = 16;

/// A secret and whom it is encrypted for.
#[derive(Debug, Clone)]
pub struct Jwe {
    /// What the tag covers besides the ciphertext.
    authenticated: Vec<u8>,
    recipients: Vec<JweRecipient>,
    iv: [u8; NONCE_LEN],
    /// With the tag at its end.
    ciphertext: Vec<u8>,
}

/// Why a JWE cannot be read, or does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JweError {
    /// Longer than any honest one.
    #[error("it is longer than {BYTES_MAX} bytes")]
    Length,
    /// Not JSON, not an object, or a member given twice.
    #[error("it is not a JWE in JSON")]
    Json(#[source] serde_json::Error),
    /// The protected header's JSON.
    #[error("its protected header cannot be read")]
    Protected(#[source] serde_json::Error),
    /// A missing or malformed member, or one of its headers.
    #[error("it lacks a valid `{0}`")]
    Member(&'static str),
    /// A member of another length.
    #[error("its {0}")]
    MemberLength(LengthError),
    /// A key that is wrapped with RSA and has the length of no RSA key.
    #[error("its `encrypted_key` has {0} bytes, but 256 to 1024 where it is wrapped with RSA")]
    RsaLength(usize),
    /// A header parameter that is valid, but not supported.
    #[error("it has the header parameter `{0}`, which is not supported")]
    Parameter(&'static str),
    /// One name in two headers of one recipient.
    #[error("its header parameter `{0}` is given twice, in two headers")]
    Overlap(String),
    /// Content encryption that we have not.
    #[error("it is encrypted with `{0}`, but only {ENC} is supported")]
    Enc(String),
    /// Members of both serialisations that do not say the same.
    #[error("it mixes the general and the flattened serialisation")]
    Mixed,
    /// None, or more than any honest one.
    #[error("it has {0} recipients, but 1 to {max} are supported", max = Jwe::RECIPIENTS_MAX)]
    Recipients(usize),
    /// All recipients are of algorithms that we have not.
    #[error(
        "it is for recipients with {0}; RSA-OAEP, RSA-OAEP-256, and ECDH-ES+A256KW on P-256, \
         P-384 and P-521 are supported"
    )]
    Algorithms(String),
    /// It does not open; why is nobody's business.
    #[error("the private key does not open it: it is for another key, or it was changed")]
    Closed,
}

impl Jwe {
    /// Most recipients that are read.
    pub const RECIPIENTS_MAX: usize = 64;

    /// Parses a JWE in JSON serialisation.
    ///
    /// # Errors
    /// See [`JweError`].
    pub fn parse(json: &[u8]) -> Result<Self, JweError> {
        if json.len() > BYTES_MAX {
            return Err(JweError::Length);
        }
        let members = json::object(json).map_err(JweError::Json)?;
        let encoded = text(&members, "protected")?.ok_or(JweError::Member("protected"))?;
        let protected = bytes(&members, "protected")?.unwrap_or_default();
        let protected = json::object(&protected).map_err(JweError::Protected)?;
        let recipients = recipients(&members, &protected)?;
        match text(&protected, "enc")? {
            Some(ENC) => {}
            Some(other) => return Err(JweError::Enc(short(other))),
            None => return Err(JweError::Member("enc")),
        }
        // RFC 7516, section 5.1, step 14: the texts as they were received.
        let mut authenticated = encoded.as_bytes().to_vec();
        if let Some(aad) = text(&members, "aad")? {
            bytes(&members, "aad")?;
            authenticated.push(b'.');
            authenticated.extend_from_slice(aad.as_bytes());
        }
        let mut ciphertext = required(&members, "ciphertext")?;
        let tag = required(&members, "tag")?;
        let tag: [u8; TAG_BYTES] = exactly("tag", &tag).map_err(JweError::MemberLength)?;
        ciphertext.extend_from_slice(&tag);
        let iv = exactly("iv", &required(&members, "iv")?).map_err(JweError::MemberLength)?;
        Ok(Self {
            authenticated,
            recipients,
            iv,
            ciphertext,
        })
    }

    /// Whom it is for, also those whose algorithm is not supported.
    #[must_use]
    pub fn recipients(&self) -> &[JweRecipient] {
        &self.recipients
    }

    /// Decrypts the secret with the key of one of its recipients.
    ///
    /// # Errors
    /// [`JweError::Algorithms`] if nobody could, or [`JweError::Closed`].
    pub fn open(&self, key: &PrivateKey) -> Result<Zeroizing<Vec<u8>>, JweError> {
        let wrapped = self
            .recipients
            .iter()
            .filter_map(|one| one.wrapped.as_ref());
        let mut wrapped = wrapped.peekable();
        if wrapped.peek().is_none() {
            return Err(JweError::Algorithms(self.algorithms()));
        }
        wrapped
            .filter_map(|one| one.content_key(key))
            .find_map(|content_key| self.decrypt(&content_key))
            .ok_or(JweError::Closed)
    }

    /// Those of the recipients, as far as a message has room for them.
    fn algorithms(&self) -> String {
        let names: BTreeSet<_> = self
            .recipients
            .iter()
            .map(JweRecipient::algorithm)
            .collect();
        let names: Vec<_> = names.into_iter().take(8).collect();
        format!("`{}`", names.join("`, `"))
    }

    fn decrypt(&self, content_key: &ContentKey) -> Option<Zeroizing<Vec<u8>>> {
        let cipher = UnboundKey::new(&AES_256_GCM, &**content_key).ok()?;
        let mut plain = Zeroizing::new(self.ciphertext.clone());
        let length = LessSafeKey::new(cipher)
            .open_in_place(
                Nonce::assume_unique_for_key(self.iv),
                Aad::from(&self.authenticated),
                &mut plain,
            )
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }
}

/// A text, if the member is there.
fn text<'a>(members: &'a Members, name: &'static str) -> Result<Option<&'a str>, JweError> {
    members
        .get(name)
        .map(|node| node.text().ok_or(JweError::Member(name)))
        .transpose()
}

/// Bytes in base64url, if the member is there.
fn bytes(members: &Members, name: &'static str) -> Result<Option<Vec<u8>>, JweError> {
    text(members, name)?
        .map(|text| {
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| JweError::Member(name))
        })
        .transpose()
}

fn required(members: &Members, name: &'static str) -> Result<Vec<u8>, JweError> {
    bytes(members, name)?.ok_or(JweError::Member(name))
}

fn object<'a>(members: &'a Members, name: &'static str) -> Result<Option<&'a Members>, JweError> {
    match members.get(name) {
        None => Ok(None),
        Some(Node::Object(inner)) => Ok(Some(inner)),
        Some(_) => Err(JweError::Member(name)),
    }
}

/// Foreign text, fit for a message.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests;
