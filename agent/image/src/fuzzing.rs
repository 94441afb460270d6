//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use std::{collections::BTreeMap, io::BufReader, sync::LazyLock};

use agent_keys::{Jwe, LayerKey, OfflineKeys, PrivateKey, Recipient};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{config::ConfigFile, document::Document, fetch, signature, tar::Reader};

/// Parses a manifest or index.
pub fn manifest(bytes: &[u8]) {
    let _ = Document::parse(bytes, None);
}

/// Parses an image configuration.
pub fn config(bytes: &[u8]) {
    let _ = ConfigFile::parse(bytes);
}

/// Reads a whole archive through a small buffer. Checksums are made right, or
/// chance would hardly ever get past them.
pub fn tar(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for block in bytes
        .chunks_exact_mut(512)
        .filter(|block| block[0] & 1 == 1)
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut reader = Reader::new(BufReader::with_capacity(64, bytes.as_slice()));
    while let Ok(Some(_)) = reader.next_entry() {
        while let Ok(content) = reader.content() {
            let length = content.len();
            if length == 0 {
                break;
            }
            reader.consume(length);
        }
    }
}

/// Reads a name server's answer.
pub fn dns(bytes: &[u8]) {
    fetch::fuzz_dns(bytes);
}

/// Reads a `WWW-Authenticate` header.
pub fn challenge(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        fetch::fuzz_challenge(text);
    }
}

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
fn edited(genuine: &[u8], edits: &[u8]) -> Vec<u8> {
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

const JWE: &[u8] = include_bytes!("../../keys/tests/vectors/jwe/two.json");
const JWE_KEYS: [&[u8]; 2] = [
    include_bytes!("../../keys/tests/vectors/jwe/rsa-2048.pem"),
    include_bytes!("../../keys/tests/vectors/jwe/p256.pem"),
];
const RING: &[u8] = include_bytes!("../tests/vectors/signatures/subkey.pub");
const MESSAGE: &[u8] = include_bytes!("../tests/vectors/signatures/packed-none.sig");
const MESSAGE_RING: &[u8] = include_bytes!("../tests/vectors/signatures/ed25519.pub");
const PUBLIC_KEY: &[u8] = include_bytes!("../tests/vectors/signatures/p256.pem");

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

/// Parses a signature policy.
pub fn signature_policy(bytes: &[u8]) {
    signature::fuzz_policy(bytes);
}

/// Parses a lookaside configuration.
pub fn lookaside(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = crate::Lookaside::parse(text);
    }
}

/// Parses what a simple or a cosign signature states.
pub fn signature_payload(bytes: &[u8]) {
    signature::fuzz_payload(bytes);
}

/// Reads and judges a key ring.
pub fn openpgp_ring(bytes: &[u8]) {
    signature::fuzz_ring(&edited(RING, bytes));
}

/// Verifies a signed message; whatever is accepted must have the genuine content.
pub fn openpgp_message(bytes: &[u8]) {
    signature::fuzz_message(MESSAGE_RING, MESSAGE, &edited(MESSAGE, bytes));
}

/// Reads a public key.
pub fn public_key(bytes: &[u8]) {
    signature::fuzz_public_key(&edited(PUBLIC_KEY, bytes));
}

/// Reads a Sigstore bundle; none that this makes is signed.
pub fn bundle(bytes: &[u8]) {
    signature::fuzz_bundle(PUBLIC_KEY, bytes);
}

/// Reads the manifest of cosign's tag.
pub fn cosign_manifest(bytes: &[u8]) {
    signature::fuzz_cosign_manifest(bytes);
}
