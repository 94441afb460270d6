//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use std::{collections::BTreeMap, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{Jwe, LayerKey, OfflineKeys, PrivateKey, Recipient};

/// Unwraps a layer's key. The public options come first, the packet after a zero byte;
/// base64 is made right, or chance would hardly ever get past it.
pub fn annotations(bytes: &[u8]) {
    let (public, packet) = match bytes.iter().position(|byte| *byte == 0) {
        Some(zero) => (&bytes[..zero], &bytes[zero + 1..]),
        None => (&b"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\"}"[..], bytes),
    };
    let annotation = |name: &str, value: &[u8]| {
        let name = format!("org.opencontainers.image.enc.{name}");
        (name, STANDARD.encode(value))
    };
    let annotations = BTreeMap::from([
        annotation("pubopts", public),
        annotation("keys.provider.attestation-agent", packet),
    ]);
    let mut keys = OfflineKeys::default();
    let key = STANDARD.encode([7; 32]);
    keys.add(format!(r#"{{"default/key/1":"{key}"}}"#).as_bytes())
        .expect("the file is one");
    let _ = Recipient::of(&annotations);
    let _ = LayerKey::unwrap(&annotations, &keys, &[]);
}

/// A genuine file with some of its bytes replaced: input of three bytes a replacement,
/// where and by what. Whoever begins with zero is taken as it is, so that nothing is
/// out of reach.
pub fn edited(genuine: &[u8], edits: &[u8]) -> Vec<u8> {
    if let Some((0, whole)) = edits.split_first() {
        return whole.to_vec();
    }
    let mut bytes = genuine.to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]]));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = edit[2];
        }
    }
    bytes
}

const JWE: &[u8] = include_bytes!("../tests/vectors/jwe/two.json");
const JWE_KEYS: [&[u8]; 2] = [
    include_bytes!("../tests/vectors/jwe/rsa-2048.pem"),
    include_bytes!("../tests/vectors/jwe/p256.pem"),
];
/// Parses a JWE and opens it with keys that it may be for; whatever opens must be what the
/// genuine one holds.
pub fn jwe(bytes: &[u8]) {
    static KEYS: LazyLock<[(PrivateKey, Vec<u8>); 2]> = LazyLock::new(|| {
        JWE_KEYS.map(|pem| {
            let key = PrivateKey::parse(pem).expect("the key is one");
            let jwe = Jwe::parse(JWE).expect("the JWE is one");
            let plain = jwe.open(&key).expect("the key is the JWE's").to_vec();
            (key, plain)
        })
    });
    let Ok(jwe) = Jwe::parse(&edited(JWE, bytes)) else {
        return;
    };
    for (key, genuine) in &*KEYS {
        if let Ok(plain) = jwe.open(key) {
            assert_eq!(*plain, *genuine);
        }
    }
}

/// Parses a private key.
pub fn private_key(bytes: &[u8]) {
    let _ = PrivateKey::parse(&edited(JWE_KEYS[1], bytes));
}
