//! The key of an encrypted image layer, from the annotations that come with it.
//!
//! A layer's descriptor carries public options (cipher and MAC) and, wrapped for
//! each way to get at them, private ones (key and nonce). What is wrapped for a
//! key provider is a JSON packet naming a key-encryption key, which the broker
//! releases; versions 1 and 2 of it differ only in members that default.
//!
//! Formats: the OCI image encryption draft as `ocicrypt` implements it; the
//! annotation packet of the Confidential Containers key provider.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::{KeyError, KeyProvider, ResourceUri, ResourceUriError, Secret};

const PUBLIC_OPTIONS: &str = "org.opencontainers.image.enc.pubopts";
const KEYS_PREFIX: &str = "org.opencontainers.image.enc.keys.";
const PROVIDER_PREFIX: &str = "org.opencontainers.image.enc.keys.provider.";
const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";
const PACKET_VERSION: &str = "0.1.0";

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
    #[error("its key is wrapped for {0} only; encrypt it for a key provider")]
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

/// Why one wrapped key does not unwrap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Not base64 of a JSON packet.
    #[error("it is not a key provider's packet")]
    Format,
    /// A packet of the future.
    #[error("its packet has version `{0}`, but only {PACKET_VERSION} is supported")]
    Version(String),
    /// A key-management service of its own.
    #[error("it is wrapped by the key-management service `{0}`, which is not supported")]
    Provider(String),
    /// Encryption that anybody on the way could have changed.
    #[error("it is wrapped with `{0}`, which is not authenticated; wrap it with A256GCM")]
    WrapType(String),
    /// A missing or malformed member.
    #[error("its packet lacks a valid `{0}`")]
    Member(&'static str),
    /// A key id that names nothing.
    #[error("its key id cannot be used")]
    KeyId(#[source] ResourceUriError),
    /// The key is not to be had.
    #[error("its key cannot be fetched")]
    Key(#[source] KeyError),
    /// A key of another length.
    #[error("key `{0}` has not 32 bytes")]
    KeyLength(ResourceUri),
    /// The key does not open the packet.
    #[error("key `{0}` does not open it: another key was used, or it was changed")]
    Authentication(ResourceUri),
    /// What was wrapped is not options.
    #[error("what it wraps is not encryption options")]
    Options,
}

#[derive(Deserialize)]
struct Packet {
    kid: String,
    wrapped_data: String,
    iv: Option<String>,
    wrap_type: Option<String>,
    version: Option<String>,
    provider: Option<String>,
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
        let option = |name: &str| {
            let of =
                |options: &Option<BTreeMap<String, String>>| options.as_ref()?.get(name).cloned();
            of(&public.cipheroptions).or_else(|| of(&private.cipheroptions))
        };
        let nonce = option("nonce")
            .and_then(|text| array(&text))
            .ok_or(LayerKeyError::Option("nonce"))?;
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
        })
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
    let json = STANDARD.decode(packet).map_err(|_| PacketError::Format)?;
    let packet: Packet = serde_json::from_slice(&json).map_err(|_| PacketError::Format)?;
    let short = |text: &str| text.chars().take(80).collect::<String>();
    match packet.provider.as_deref() {
        None | Some("kbs") => {}
        Some(other) => return Err(PacketError::Provider(short(other))),
    }
    match packet.version.as_deref() {
        None | Some(PACKET_VERSION) => {}
        Some(other) => return Err(PacketError::Version(short(other))),
    }
    match packet.wrap_type.as_deref() {
        Some("A256GCM") => {}
        Some(other) => return Err(PacketError::WrapType(short(other))),
        None => return Err(PacketError::Member("wrap_type")),
    }
    let iv: [u8; 12] = packet
        .iv
        .as_deref()
        .and_then(array)
        .ok_or(PacketError::Member("iv"))?;
    let wrapped = STANDARD
        .decode(&packet.wrapped_data)
        .map_err(|_| PacketError::Member("wrapped_data"))?;
    let uri = ResourceUri::parse(&packet.kid).map_err(PacketError::KeyId)?;
    let key = keys.fetch(&uri).map_err(PacketError::Key)?;
    let options = decrypt(&key, iv, wrapped, uri)?;
    serde_json::from_slice(&options).map_err(|_| PacketError::Options)
}

fn decrypt(
    key: &Secret,
    iv: [u8; 12],
    wrapped: Vec<u8>,
    uri: ResourceUri,
) -> Result<Zeroizing<Vec<u8>>, PacketError> {
    let Ok(key) = UnboundKey::new(&AES_256_GCM, key.expose()) else {
        return Err(PacketError::KeyLength(uri));
    };
    let mut bytes = Zeroizing::new(wrapped);
    let opened = LessSafeKey::new(key).open_in_place(
        Nonce::assume_unique_for_key(iv),
        Aad::empty(),
        &mut bytes,
    );
    match opened.map(|plain| plain.len()) {
        Ok(length) => {
            bytes.truncate(length);
            Ok(bytes)
        }
        Err(_) => Err(PacketError::Authentication(uri)),
    }
}

#[cfg(test)]
mod tests;
