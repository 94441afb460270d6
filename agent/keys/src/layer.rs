//! The key of an encrypted image layer, from the annotations that come with it.
//!
//! A layer's descriptor carries public options (cipher and MAC) and, wrapped for
//! each way to get at them, private ones (key and nonce). What is wrapped for a
//! key provider is a [`Packet`] naming a key-encryption key, which the broker
//! releases; what is wrapped for a public key is a [`Jwe`].
//!
//! Packets are tried first: their keys are released on proof, each on its own. A private
//! key is long-lived, it lies in the memory of every guest that was ever given it, and it
//! opens every image that was ever encrypted for it. JWE is here for images that exist
//! and for owners who have nothing but a public key to encrypt with.
//!
//! Other ways are refused by name. Formats: the OCI image encryption draft as `ocicrypt`
//! implements it.

use std::collections::BTreeMap;

use agent_documents::parse_json;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Jwe, KeyProvider, ResourceUri,
    annotations::{CIPHER, JWE, KEYS_PREFIX, NONCE, PROVIDER_PREFIX, PUBLIC_OPTIONS},
    length::exactly,
    packet::Packet,
};

mod error;
mod wrapped;

pub use error::{JweKeyError, LayerKeyError};
use wrapped::Wrapped;

/// Annotations longer than this are not looked into.
const ANNOTATION_MAX_BYTES: usize = 256 * 1024;
/// Of each kind.
const WRAPPED_MAX: usize = 64;

/// All that decrypts one layer and proves it authentic.
pub struct LayerKey {
    /// AES-256 and HMAC-SHA-256 key, one and the same.
    pub symkey: Zeroizing<[u8; 32]>,
    /// The initial counter block.
    pub nonce: [u8; 16],
    /// HMAC-SHA-256 of the ciphertext.
    pub hmac: [u8; 32],
    /// Digest of the layer before encryption, where the producer gave one.
    pub digest: Option<String>,
}

/// Whom a layer's key is wrapped for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recipient {
    /// A key provider, by the id of the key-encryption key.
    Key {
        /// What the annotation calls the provider.
        provider: String,
        /// As the packet spells it.
        id: String,
    },
    /// A packet that cannot be read, of the provider named.
    Unreadable(String),
    /// The holder of a private key.
    Jwe {
        /// How the key is wrapped, as the JWE says.
        algorithm: String,
        /// Which key, if it says so.
        id: Option<String>,
    },
    /// Something else, `pgp` or `pkcs7`, or `jwe` that cannot be read.
    Other(String),
}

#[derive(Deserialize)]
struct PublicOptions {
    cipher: String,
    #[serde(default)]
    hmac: String,
    #[serde(default)]
    cipheroptions: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct PrivateOptions {
    symkey: String,
    #[serde(default)]
    cipheroptions: Option<BTreeMap<String, String>>,
    #[serde(default)]
    digest: Option<String>,
}

impl Drop for PrivateOptions {
    fn drop(&mut self) {
        self.symkey.zeroize();
    }
}

impl LayerKey {
    /// Unwraps a layer's key: every wrapped form is tried until one opens, packets with what
    /// they name of `keys`, then JWE with those of `keys` that `private_keys` names.
    ///
    /// # Errors
    /// See [`LayerKeyError`].
    pub fn unwrap(
        annotations: &BTreeMap<String, String>,
        keys: &dyn KeyProvider,
        private_keys: &[ResourceUri],
    ) -> Result<Self, LayerKeyError> {
        let public = public_options(annotations)?;
        let wrapped = Wrapped::find(annotations)?;
        let private = wrapped.open(keys, private_keys)?;
        Self::from_options(&public, &private)
    }

    fn from_options(
        public: &PublicOptions,
        private: &PrivateOptions,
    ) -> Result<Self, LayerKeyError> {
        // The public ones come first, as the draft has it.
        let of = |options: &Option<BTreeMap<String, String>>| options.as_ref()?.get(NONCE).cloned();
        let (stated, wrapped) = (of(&public.cipheroptions), of(&private.cipheroptions));
        let nonce = stated.or(wrapped).ok_or(LayerKeyError::Option(NONCE))?;
        let nonce = array(NONCE, &nonce)?;
        let hmac = array("hmac", &public.hmac)?;
        let symkey = array("symkey", &private.symkey)?;
        let digest = private.digest.clone().filter(|digest| !digest.is_empty());
        Ok(Self {
            symkey: Zeroizing::new(symkey),
            nonce,
            hmac,
            digest,
        })
    }
}

impl Recipient {
    /// Everybody that a layer's annotations name; nobody for a layer that is not encrypted.
    #[must_use]
    pub fn of(annotations: &BTreeMap<String, String>) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, value) in annotations {
            if let Some(provider) = name.strip_prefix(PROVIDER_PREFIX) {
                let packets = value.split(',').map(str::trim).take(WRAPPED_MAX);
                all.extend(packets.map(|text| match Packet::parse_base64(text) {
                    Ok(packet) => Self::Key {
                        provider: provider.to_owned(),
                        id: packet.key_id().to_owned(),
                    },
                    Err(_) => Self::Unreadable(provider.to_owned()),
                }));
            } else if name == JWE {
                for text in value.split(',').map(str::trim).take(WRAPPED_MAX) {
                    all.extend(Self::of_jwe(text));
                }
            } else if let Some(other) = name.strip_prefix(KEYS_PREFIX) {
                all.push(Self::Other(other.to_owned()));
            }
        }
        all
    }

    fn of_jwe(base64: &str) -> Vec<Self> {
        let jwe = STANDARD.decode(base64).ok();
        let Some(jwe) = jwe.and_then(|json| Jwe::parse(&json).ok()) else {
            return vec![Self::Other("jwe".to_owned())];
        };
        let recipients = jwe.recipients().iter().map(|one| Self::Jwe {
            algorithm: one.algorithm().to_owned(),
            id: one.key_id().map(str::to_owned),
        });
        recipients.collect()
    }
}

/// An option of a fixed length, from base64. It may be a key.
fn array<const N: usize>(name: &'static str, text: &str) -> Result<[u8; N], LayerKeyError> {
    let bytes = STANDARD.decode(text).map(Zeroizing::new);
    match bytes {
        Ok(bytes) if !bytes.is_empty() => exactly(name, &bytes).map_err(LayerKeyError::Length),
        _ => Err(LayerKeyError::Option(name)),
    }
}

fn public_options(annotations: &BTreeMap<String, String>) -> Result<PublicOptions, LayerKeyError> {
    let text = annotations
        .get(PUBLIC_OPTIONS)
        .ok_or(LayerKeyError::Missing(PUBLIC_OPTIONS))?;
    let unreadable = || LayerKeyError::Annotation(PUBLIC_OPTIONS.to_owned());
    let json = Some(text)
        .filter(|text| text.len() <= ANNOTATION_MAX_BYTES)
        .and_then(|text| STANDARD.decode(text).ok());
    let options: PublicOptions =
        parse_json(&json.ok_or_else(unreadable)?).map_err(|_| unreadable())?;
    match options.cipher.as_str() {
        CIPHER => Ok(options),
        other => Err(LayerKeyError::Cipher(other.chars().take(80).collect())),
    }
}

#[cfg(test)]
mod tests;
