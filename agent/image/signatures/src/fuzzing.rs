//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use agent_image_registry::{Digest, Original, Reference};
use agent_keys::fuzzing::edited;

use super::{
    Lookaside, SignaturePolicy, attached, bundle,
    openpgp::Keyring,
    payload::{Kind, Payload},
    public_key::PublicKey,
};

const RING: &[u8] = include_bytes!("../tests/vectors/subkey.pub");
const MESSAGE: &[u8] = include_bytes!("../tests/vectors/packed-none.sig");
const MESSAGE_RING: &[u8] = include_bytes!("../tests/vectors/ed25519.pub");
const PUBLIC_KEY: &[u8] = include_bytes!("../tests/vectors/p256.pem");

/// Some days after the vectors were made.
const NOW: u64 = 1_717_632_000;

/// Parses a signature policy.
pub fn signature_policy(bytes: &[u8]) {
    if let Ok(policy) = SignaturePolicy::parse(bytes) {
        let reference = Reference::parse("r.b.example:5000/team/app:1").expect("it is one");
        let (_, requirements) = policy.of(&reference);
        assert!(!requirements.is_empty(), "no requirement is no decision");
    }
}

/// Parses a lookaside configuration.
pub fn lookaside(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Lookaside::parse(text);
    }
}

/// Parses what a simple or a cosign signature states.
pub fn signature_payload(bytes: &[u8]) {
    let _ = (
        Payload::parse(bytes, Kind::Simple),
        Payload::parse(bytes, Kind::Cosign),
    );
}

/// Reads and judges a key ring.
pub fn openpgp_ring(bytes: &[u8]) {
    let _ = Keyring::parse(&edited(RING, bytes), NOW);
}

/// Verifies a signed message; whatever is accepted must have the genuine content.
pub fn openpgp_message(bytes: &[u8]) {
    let ring = Keyring::parse(MESSAGE_RING, NOW).expect("the ring is genuine");
    if let Ok(signed) = ring.verify(&edited(MESSAGE, bytes), NOW) {
        let genuine = ring.verify(MESSAGE, NOW).expect("the message is genuine");
        assert_eq!(
            signed.content, genuine.content,
            "another content was accepted"
        );
    }
}

/// Reads a public key.
pub fn public_key(bytes: &[u8]) {
    if let Ok(key) = PublicKey::parse(&edited(PUBLIC_KEY, bytes)) {
        assert!(!key.verifies(b"message", b"no signature"));
    }
}

/// Reads a Sigstore bundle; none that this makes is signed.
pub fn bundle(bytes: &[u8]) {
    let keys = [PublicKey::parse(PUBLIC_KEY).expect("the key is genuine")];
    let manifest = Original {
        digest: Digest::sha256(b"manifest"),
        bytes: b"manifest".to_vec(),
    };
    assert!(
        bundle::verify(bytes, &keys, &[manifest]).is_err(),
        "nobody signed it"
    );
}

/// Reads the manifest of cosign's tag.
pub fn cosign_manifest(bytes: &[u8]) {
    attached::fuzz_manifest(bytes);
}
