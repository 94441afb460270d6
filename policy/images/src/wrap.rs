//! Wraps a layer's key into the annotations that the guest unwraps
//! ([`agent_keys::LayerKey`]).

use std::collections::BTreeMap;

use agent_keys::{
    LayerKey, ResourceUri, Secret,
    annotations::{CIPHER, JWE, NONCE, PROVIDER_PREFIX, PUBLIC_OPTIONS},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use crate::{PacketVersion, PublicKey, SealError, jwe, packet};

/// The name of the provider that Confidential Containers use; readers take any.
const PROVIDER: &str = "attestation-agent";

#[derive(Serialize)]
struct PublicOptions {
    cipher: &'static str,
    hmac: String,
    cipheroptions: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct PrivateOptions {
    symkey: String,
    cipheroptions: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl Drop for PrivateOptions {
    fn drop(&mut self) {
        self.symkey.zeroize();
    }
}

/// The annotations of an encrypted layer, its key wrapped for each of these key-encryption
/// keys and public keys. The nonce is wrapped with it, whatever `key` says.
///
/// # Errors
/// See [`SealError`].
pub fn wrap(
    key: &LayerKey,
    recipients: &[(ResourceUri, Secret)],
    version: PacketVersion,
    public_keys: &[PublicKey],
) -> Result<BTreeMap<String, String>, SealError> {
    let private = PrivateOptions {
        symkey: STANDARD.encode(*key.symkey),
        cipheroptions: [(NONCE, STANDARD.encode(key.nonce))].into(),
        digest: key.digest.clone(),
    };
    let private = serde_json::to_vec(&private).map(Zeroizing::new);
    let private = private.expect("options are an object of texts");
    let public = PublicOptions {
        cipher: CIPHER,
        hmac: STANDARD.encode(key.hmac),
        cipheroptions: BTreeMap::new(),
    };
    let public = serde_json::to_vec(&public).expect("options are an object of texts");
    let mut annotations = BTreeMap::new();
    annotations.insert(PUBLIC_OPTIONS.to_owned(), STANDARD.encode(public));
    if !recipients.is_empty() {
        let packets = recipients.iter().map(|(id, kek)| {
            let packet = packet::seal(&private, id, kek, version)?;
            Ok(STANDARD.encode(packet))
        });
        let packets = packets.collect::<Result<Vec<_>, SealError>>()?;
        annotations.insert(format!("{PROVIDER_PREFIX}{PROVIDER}"), packets.join(","));
    }
    if !public_keys.is_empty() {
        let jwe = jwe::seal(&private, public_keys)?;
        annotations.insert(JWE.to_owned(), STANDARD.encode(jwe));
    }
    Ok(annotations)
}
