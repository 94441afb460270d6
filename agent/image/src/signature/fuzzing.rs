//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use super::{
    SignaturePolicy, attached, bundle,
    openpgp::Keyring,
    payload::{Kind, Payload},
    public_key::PublicKey,
};
use crate::{digest::Digest, reference::Reference, resolved::Original};

/// Some days after the vectors were made.
const NOW: u64 = 1_717_632_000;

pub(crate) fn fuzz_policy(bytes: &[u8]) {
    if let Ok(policy) = SignaturePolicy::parse(bytes) {
        let reference = Reference::parse("r.b.example:5000/team/app:1").expect("it is one");
        let (_, requirements) = policy.of(&reference);
        assert!(!requirements.is_empty(), "no requirement is no decision");
    }
}

pub(crate) fn fuzz_payload(bytes: &[u8]) {
    let _ = (
        Payload::parse(bytes, Kind::Simple),
        Payload::parse(bytes, Kind::Cosign),
    );
}

pub(crate) fn fuzz_ring(bytes: &[u8]) {
    let _ = Keyring::parse(bytes, NOW);
}

pub(crate) fn fuzz_message(ring: &[u8], genuine: &[u8], message: &[u8]) {
    let ring = Keyring::parse(ring, NOW).expect("the ring is genuine");
    if let Ok(signed) = ring.verify(message, NOW) {
        let genuine = ring.verify(genuine, NOW).expect("the message is genuine");
        assert_eq!(
            signed.content, genuine.content,
            "another content was accepted"
        );
    }
}

pub(crate) fn fuzz_public_key(bytes: &[u8]) {
    if let Ok(key) = PublicKey::parse(bytes) {
        assert!(!key.verifies(b"message", b"no signature"));
    }
}

pub(crate) fn fuzz_bundle(key: &[u8], bytes: &[u8]) {
    let keys = [PublicKey::parse(key).expect("the key is genuine")];
    let manifest = Original {
        digest: Digest::sha256(b"manifest"),
        bytes: b"manifest".to_vec(),
    };
    assert!(
        bundle::verify(bytes, &keys, &[manifest]).is_err(),
        "nobody signed it"
    );
}

pub(crate) fn fuzz_cosign_manifest(bytes: &[u8]) {
    attached::fuzz_manifest(bytes);
}
