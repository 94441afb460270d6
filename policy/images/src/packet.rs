//! Seals a secret as a key provider's packet, which the guest opens
//! ([`agent_keys::Packet`]).
//!
//! Format: the annotation packet of the Confidential Containers key provider;
//! AES-256-GCM with a 12-byte nonce, the 16-byte tag at the end, no further data.

use agent_keys::{ResourceUri, Secret};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::SealError;

const VERSION: &str = "0.1.0";
const WRAP_TYPE: &str = "A256GCM";
const PROVIDER: &str = "kbs";

/// The form of a packet; readers of the second read the first too, not the other way round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PacketVersion {
    /// What every guest reads.
    #[default]
    One,
    /// With version and provider spelled out.
    Two,
}

#[derive(Serialize)]
struct Packet {
    kid: String,
    wrapped_data: String,
    iv: String,
    wrap_type: &'static str,
    #[serde(flatten)]
    second: Option<Second>,
}

/// What version 2 adds.
#[derive(Serialize)]
struct Second {
    version: &'static str,
    provider: &'static str,
    provider_settings: Empty,
    annotations: Empty,
}

#[derive(Serialize)]
struct Empty {}

/// Wraps a secret under a fresh nonce; gives the packet's JSON.
///
/// # Errors
/// See [`SealError`].
pub fn seal(
    plain: &[u8],
    id: &ResourceUri,
    key: &Secret,
    version: PacketVersion,
) -> Result<Vec<u8>, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, key.expose())
        .map_err(|_| SealError::KeyLength(id.clone()))?;
    let mut iv = [0; 12];
    SystemRandom::new()
        .fill(&mut iv)
        .map_err(|_| SealError::Random)?;
    // Encrypted in place: what it grows into is no secret any more.
    let mut wrapped = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
    wrapped.extend_from_slice(plain);
    LessSafeKey::new(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), Aad::empty(), &mut wrapped)
        .expect("options are far shorter than what AES-GCM can take");
    let packet = Packet {
        kid: id.to_string(),
        wrapped_data: STANDARD.encode(wrapped),
        iv: STANDARD.encode(iv),
        wrap_type: WRAP_TYPE,
        second: match version {
            PacketVersion::One => None,
            PacketVersion::Two => Some(Second {
                version: VERSION,
                provider: PROVIDER,
                provider_settings: Empty {},
                annotations: Empty {},
            }),
        },
    };
    Ok(serde_json::to_vec(&packet).expect("a packet is an object of texts"))
}
