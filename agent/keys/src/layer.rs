//! The key of an encrypted image layer, from the annotations that come with it.
//!
//! A layer's descriptor carries public options (cipher and MAC) and, wrapped for
//! each way to get at them, private ones (key and nonce). What is wrapped for a
//! key provider is a [`Packet`] naming a key-encryption key, which the broker
//! releases.
//!
//! Other ways than packets are refused by name. JWE would put a long-lived private
//! key into every guest, for RSA-OAEP or static ECDH, neither of which *ring* has:
//! a second cryptographic library in the measured image, to replace a key that is
//! released on proof by one that is not.
//!
//! Formats: the OCI image encryption draft as `ocicrypt` implements it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::packet::{Packet, PacketError, PacketVersion, SealError};
use crate::{KeyProvider, ResourceUri, Secret};

const PUBLIC_OPTIONS: &str = "org.opencontainers.image.enc.pubopts";
const KEYS_PREFIX: &str = "org.opencontainers.image.enc.keys.";
const PROVIDER_PREFIX: &str = "org.opencontainers.image.enc.keys.provider.";
/// The one that Confidential Containers use; readers take any.
const PROVIDER: &str = "attestation-agent";
const NONCE: &str = "nonce";
const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";

/// Annotations longer than this are not looked into.
const ANNOTATION_MAX_BYTES: usize = 256 * 1024;
const PACKETS_MAX: usize = 64;

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
    /// Whether the nonce was wrapped together with the key, and not stated in the open.
    pub nonce_was_wrapped: bool,
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
    /// Something that is not a key provider: `jwe`, `pgp`, `pkcs7`.
    Other(String),
}

/// Why a layer's key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerKeyError {
    /// An annotation that is absent.
    #[error("its annotation `{0}` is missing")]
    Missing(&'static str),
    /// An annotation that is not what it should be.
    #[error("its annotation `{0}` cannot be read")]
    Annotation(String),
    /// A cipher we have not.
    #[error("it is encrypted with `{0}`, but only {CIPHER} is supported")]
    Cipher(String),
    /// An option without which nothing can be decrypted or checked.
    #[error("its encryption options lack a valid `{0}`")]
    Option(&'static str),
    /// Wrapped, but in ways that need no key provider.
    #[error(
        "its key is wrapped for {0} only, which needs a private key in the guest; encrypt it for a key provider"
    )]
    Wrapping(String),
    /// No packet unwrapped; this is what the last one said.
    #[error("none of its {count} wrapped keys can be unwrapped")]
    Packets {
        /// How many there are.
        count: usize,
        /// Why the last one failed.
        #[source]
        last: PacketError,
    },
}

#[derive(Serialize, Deserialize)]
struct PublicOptions {
    cipher: String,
    #[serde(default)]
    hmac: String,
    #[serde(default)]
    cipheroptions: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
struct PrivateOptions {
    symkey: String,
    #[serde(default)]
    cipheroptions: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl Drop for PrivateOptions {
    fn drop(&mut self) {
        self.symkey.zeroize();
    }
}

impl LayerKey {
    /// Unwraps a layer's key: every wrapped form is tried until one opens.
    ///
    /// # Errors
    /// See [`LayerKeyError`].
    pub fn unwrap(
        annotations: &BTreeMap<String, String>,
        keys: &dyn KeyProvider,
    ) -> Result<Self, LayerKeyError> {
        let public = public_options(annotations)?;
        let packets = packets(annotations)?;
        let count = packets.len();
        let mut last = PacketError::Format;
        for packet in packets {
            match open(packet, keys) {
                Ok(private) => return Self::from_options(&public, &private),
                Err(error) => last = error,
            }
        }
        Err(LayerKeyError::Packets { count, last })
    }

    fn from_options(
        public: &PublicOptions,
        private: &PrivateOptions,
    ) -> Result<Self, LayerKeyError> {
        // The public ones come first, as the draft has it.
        let of = |options: &Option<BTreeMap<String, String>>| options.as_ref()?.get(NONCE).cloned();
        let (stated, wrapped) = (of(&public.cipheroptions), of(&private.cipheroptions));
        let nonce_was_wrapped = stated.is_none() || stated == wrapped;
        let nonce = stated
            .or(wrapped)
            .and_then(|text| array(&text))
            .ok_or(LayerKeyError::Option(NONCE))?;
        let hmac = array(&public.hmac).ok_or(LayerKeyError::Option("hmac"))?;
        let symkey = Zeroizing::new(STANDARD.decode(&private.symkey).unwrap_or_default());
        let symkey =
            <[u8; 32]>::try_from(symkey.as_slice()).map_err(|_| LayerKeyError::Option("symkey"))?;
        let digest = private.digest.clone().filter(|digest| !digest.is_empty());
        Ok(Self {
            symkey: Zeroizing::new(symkey),
            nonce,
            hmac,
            digest,
            nonce_was_wrapped,
        })
    }

    /// The annotations of the encrypted layer, its key wrapped for each of these
    /// key-encryption keys. The nonce is wrapped with it, whatever `self` says.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn wrap(
        &self,
        recipients: &[(ResourceUri, Secret)],
        version: PacketVersion,
    ) -> Result<BTreeMap<String, String>, SealError> {
        let private = PrivateOptions {
            symkey: STANDARD.encode(*self.symkey),
            cipheroptions: Some([(NONCE.to_owned(), STANDARD.encode(self.nonce))].into()),
            digest: self.digest.clone(),
        };
        let private = serde_json::to_vec(&private).map(Zeroizing::new);
        let private = private.expect("options are an object of texts");
        let mut packets = Vec::with_capacity(recipients.len());
        for (id, key) in recipients {
            let packet = Packet::seal(&private, id, key, version)?;
            packets.push(STANDARD.encode(packet.to_json()));
        }
        let public = PublicOptions {
            cipher: CIPHER.to_owned(),
            hmac: STANDARD.encode(self.hmac),
            cipheroptions: Some(BTreeMap::new()),
        };
        let public = serde_json::to_vec(&public).expect("options are an object of texts");
        Ok(BTreeMap::from([
            (PUBLIC_OPTIONS.to_owned(), STANDARD.encode(public)),
            (format!("{PROVIDER_PREFIX}{PROVIDER}"), packets.join(",")),
        ]))
    }
}

impl Recipient {
    /// Everybody that a layer's annotations name; nobody for a layer that is not encrypted.
    #[must_use]
    pub fn of(annotations: &BTreeMap<String, String>) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, value) in annotations {
            if let Some(provider) = name.strip_prefix(PROVIDER_PREFIX) {
                let packets = value.split(',').map(str::trim).take(PACKETS_MAX);
                all.extend(packets.map(|text| match Packet::parse_base64(text) {
                    Ok(packet) => Self::Key {
                        provider: provider.to_owned(),
                        id: packet.key_id().to_owned(),
                    },
                    Err(_) => Self::Unreadable(provider.to_owned()),
                }));
            } else if let Some(other) = name.strip_prefix(KEYS_PREFIX) {
                all.push(Self::Other(other.to_owned()));
            }
        }
        all
    }
}

fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
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
        serde_json::from_slice(&json.ok_or_else(unreadable)?).map_err(|_| unreadable())?;
    match options.cipher.as_str() {
        CIPHER => Ok(options),
        other => Err(LayerKeyError::Cipher(other.chars().take(80).collect())),
    }
}

/// The packets of all key providers, whatever their name.
fn packets(annotations: &BTreeMap<String, String>) -> Result<Vec<&str>, LayerKeyError> {
    let mut packets = Vec::new();
    let mut others = Vec::new();
    for (name, value) in annotations {
        if name.starts_with(PROVIDER_PREFIX) {
            if value.len() > ANNOTATION_MAX_BYTES {
                return Err(LayerKeyError::Annotation(name.chars().take(120).collect()));
            }
            packets.extend(
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|packet| !packet.is_empty()),
            );
        } else if let Some(wrapping) = name.strip_prefix(KEYS_PREFIX) {
            others.push(wrapping.chars().take(40).collect::<String>());
        }
    }
    packets.truncate(PACKETS_MAX);
    match (packets.is_empty(), others.is_empty()) {
        (false, _) => Ok(packets),
        (true, false) => Err(LayerKeyError::Wrapping(others.join(", "))),
        (true, true) => Err(LayerKeyError::Missing(
            "org.opencontainers.image.enc.keys.provider.*",
        )),
    }
}

fn open(packet: &str, keys: &dyn KeyProvider) -> Result<PrivateOptions, PacketError> {
    let options = Packet::parse_base64(packet)?.open(keys)?;
    serde_json::from_slice(&options).map_err(|_| PacketError::Options)
}

#[cfg(test)]
mod tests;
