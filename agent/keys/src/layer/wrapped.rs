//! The wrapped forms of a layer's key, and the order in which they are tried.

use std::collections::BTreeMap;

use agent_documents::parse_json;
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{ANNOTATION_MAX_BYTES, JweKeyError, LayerKeyError, PrivateOptions, WRAPPED_MAX};
use crate::{
    Jwe, JweError, KeyProvider, PrivateKey, ResourceUri,
    annotations::{JWE, KEYS_PREFIX, PROVIDER_PREFIX},
    packet::{Packet, PacketError},
};

/// All that is wrapped in ways that we have, still in base64.
pub(super) struct Wrapped<'a> {
    /// Of all key providers, whatever their name.
    packets: Vec<&'a str>,
    jwes: Vec<&'a str>,
}

impl<'a> Wrapped<'a> {
    /// Finds at least one.
    pub(super) fn find(annotations: &'a BTreeMap<String, String>) -> Result<Self, LayerKeyError> {
        let (mut packets, mut jwes, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in annotations {
            let list = if name.starts_with(PROVIDER_PREFIX) {
                &mut packets
            } else if name == JWE {
                &mut jwes
            } else if let Some(other) = name.strip_prefix(KEYS_PREFIX) {
                others.push(other.chars().take(40).collect::<String>());
                continue;
            } else {
                continue;
            };
            if value.len() > ANNOTATION_MAX_BYTES {
                return Err(LayerKeyError::Annotation(name.chars().take(120).collect()));
            }
            let texts = value.split(',').map(str::trim);
            list.extend(texts.filter(|text| !text.is_empty()));
        }
        packets.truncate(WRAPPED_MAX);
        jwes.truncate(WRAPPED_MAX);
        if !packets.is_empty() || !jwes.is_empty() {
            return Ok(Self { packets, jwes });
        }
        if others.is_empty() {
            return Err(LayerKeyError::Missing(
                "org.opencontainers.image.enc.keys.provider.*",
            ));
        }
        Err(LayerKeyError::Wrapping(others.join(", ")))
    }

    /// Opens the first that opens.
    pub(super) fn open(
        &self,
        keys: &dyn KeyProvider,
        private_keys: &[ResourceUri],
    ) -> Result<PrivateOptions, LayerKeyError> {
        let count = self.packets.len();
        let of_packets = match self.open_packets(keys) {
            Ok(options) => return Ok(options),
            Err(failure) => failure.map(|last| LayerKeyError::Packets { count, last }),
        };
        if self.jwes.is_empty() || private_keys.is_empty() {
            return Err(of_packets.unwrap_or(LayerKeyError::NoPrivateKeys));
        }
        let of_jwes = match self.open_jwes(keys, private_keys) {
            Ok(options) => return Ok(options),
            Err(cause) => LayerKeyError::Jwe {
                count: self.jwes.len(),
                keys: private_keys.len(),
                cause,
            },
        };
        Err(match of_packets {
            None => of_jwes,
            Some(packets) => LayerKeyError::Both {
                packets: Box::new(packets),
                jwes: Box::new(of_jwes),
            },
        })
    }

    /// If there are any and none opens, what the last one said.
    fn open_packets(&self, keys: &dyn KeyProvider) -> Result<PrivateOptions, Option<PacketError>> {
        let mut last = None;
        for packet in &self.packets {
            match open_packet(packet, keys) {
                Ok(options) => return Ok(options),
                Err(error) => last = Some(error),
            }
        }
        Err(last)
    }

    /// A private key that is not to be had explains more than a JWE that does not open.
    fn open_jwes(
        &self,
        keys: &dyn KeyProvider,
        uris: &[ResourceUri],
    ) -> Result<PrivateOptions, JweKeyError> {
        let (mut usable, mut unusable) = (Vec::new(), None);
        for uri in uris {
            match private_key(uri, keys) {
                Ok(key) => usable.push(key),
                Err(error) => drop(unusable.get_or_insert(error)),
            }
        }
        let mut last = None;
        for jwe in &self.jwes {
            match open_jwe(jwe, &usable) {
                Ok(options) => return Ok(options),
                Err(error) => last = Some(error),
            }
        }
        Err(unusable.or(last).unwrap_or(JweKeyError::Base64))
    }
}

fn open_packet(packet: &str, keys: &dyn KeyProvider) -> Result<PrivateOptions, PacketError> {
    let options = Packet::parse_base64(packet)?.open(keys)?;
    parse_json(&options).map_err(|_| PacketError::Options)
}

fn private_key(uri: &ResourceUri, keys: &dyn KeyProvider) -> Result<PrivateKey, JweKeyError> {
    let secret = keys.fetch(uri).map_err(JweKeyError::Fetch)?;
    PrivateKey::parse(secret.expose()).map_err(|source| JweKeyError::Key {
        uri: uri.clone(),
        source,
    })
}

fn open_jwe(base64: &str, keys: &[PrivateKey]) -> Result<PrivateOptions, JweKeyError> {
    let json = STANDARD.decode(base64).map_err(|_| JweKeyError::Base64)?;
    let jwe = Jwe::parse(&json)?;
    let mut last = JweError::Closed;
    for key in keys {
        match jwe.open(key) {
            Ok(options) => {
                return parse_json(&options).map_err(|_| JweKeyError::Options);
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}
