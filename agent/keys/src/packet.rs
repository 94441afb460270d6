//! One wrapped secret of an image: a key provider's packet.
//!
//! A JSON object that names a key-encryption key and holds, wrapped with it, the
//! private options of one layer. Versions 1 and 2 differ only in members that
//! default. Packets are opened here and sealed by the owner's tools. They come with
//! images and are hostile until their authentication tag has matched.
//!
//! Format: the annotation packet of the Confidential Containers key provider;
//! AES-256-GCM with a 12-byte nonce, the 16-byte tag at the end, no further data.

use agent_documents::parse_json;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    KeyError, KeyProvider, LengthError, ResourceUri, ResourceUriError, Secret, length::exactly,
};

const VERSION: &str = "0.1.0";
const WRAP_TYPE: &str = "A256GCM";
const PROVIDER: &str = "kbs";

/// Why one wrapped key does not unwrap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Not base64.
    #[error("it is not base64")]
    Base64,
    /// Not a packet's JSON.
    #[error("it is not a key provider's packet")]
    Json(#[source] serde_json::Error),
    /// A packet that does not say which key opens it.
    #[error("its packet does not name its key: it has no `kid`")]
    NoKeyId,
    /// A packet of the future.
    #[error("its packet has version `{0}`, but only {VERSION} is supported")]
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
    /// A member of another length.
    #[error("its packet's {0}")]
    Length(LengthError),
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

/// A wrapped secret.
#[derive(Debug, Clone)]
pub struct Packet {
    key_id: String,
    members: Members,
}

#[derive(Debug, Clone, Deserialize)]
struct Members {
    kid: Option<String>,
    wrapped_data: String,
    iv: Option<String>,
    wrap_type: Option<String>,
    // Version 2 from here on.
    version: Option<String>,
    provider: Option<String>,
    #[serde(rename = "provider_settings")]
    _provider_settings: Option<Empty>,
    #[serde(rename = "annotations")]
    _annotations: Option<Empty>,
}

/// An object whose members are of no interest.
#[derive(Debug, Clone, Deserialize)]
struct Empty {}

impl Packet {
    /// Parses a packet's JSON.
    ///
    /// # Errors
    /// It is no packet, or names no key.
    pub fn parse(json: &[u8]) -> Result<Self, PacketError> {
        let mut members: Members = parse_json(json).map_err(PacketError::Json)?;
        let key_id = members.kid.take().ok_or(PacketError::NoKeyId)?;
        Ok(Self { key_id, members })
    }

    /// Parses a packet as it stands in an annotation, in base64.
    pub(crate) fn parse_base64(text: &str) -> Result<Self, PacketError> {
        Self::parse(&STANDARD.decode(text).map_err(|_| PacketError::Base64)?)
    }

    /// The key-encryption key's id, as the packet spells it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Unwraps the secret with a key from `keys`.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn open(&self, keys: &dyn KeyProvider) -> Result<Zeroizing<Vec<u8>>, PacketError> {
        let members = &self.members;
        let short = |text: &str| text.chars().take(80).collect::<String>();
        match members.provider.as_deref() {
            None | Some(PROVIDER) => {}
            Some(other) => return Err(PacketError::Provider(short(other))),
        }
        match members.version.as_deref() {
            None | Some(VERSION) => {}
            Some(other) => return Err(PacketError::Version(short(other))),
        }
        match members.wrap_type.as_deref() {
            Some(WRAP_TYPE) => {}
            Some(other) => return Err(PacketError::WrapType(short(other))),
            None => return Err(PacketError::Member("wrap_type")),
        }
        let iv = members.iv.as_deref();
        let iv = iv.and_then(|text| STANDARD.decode(text).ok());
        let iv = exactly("iv", &iv.ok_or(PacketError::Member("iv"))?);
        let iv = iv.map_err(PacketError::Length)?;
        let wrapped = STANDARD
            .decode(&members.wrapped_data)
            .map_err(|_| PacketError::Member("wrapped_data"))?;
        let uri = ResourceUri::parse(&self.key_id).map_err(PacketError::KeyId)?;
        let key = keys.fetch(&uri).map_err(PacketError::Key)?;
        decrypt(&key, iv, wrapped, uri)
    }
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
