//! What the owner wraps, the guest unwraps.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;

use agent_keys::{LayerKey, LayerKeyError, OfflineKeys, Recipient, ResourceUri, Secret};
use base64::{Engine, engine::general_purpose::STANDARD};
use policy_images::{PacketVersion, PublicKey, SealError, wrap};

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!("../../../agent/keys/tests/vectors/jwe/", $name))
    };
}

const RSA: &str = vector!("rsa-2048.pem");
const P256: &str = vector!("p256.pem");
const KEK: [u8; 32] = [7; 32];

fn keys() -> OfflineKeys {
    let mut keys = OfflineKeys::default();
    keys.add(format!(r#"{{"default/key/1":"{}"}}"#, STANDARD.encode(KEK)).as_bytes())
        .unwrap();
    keys
}

/// Resources `default/private-key/N`, from 1.
fn private_keys(pems: &[&str]) -> (OfflineKeys, Vec<ResourceUri>) {
    let (mut keys, mut uris) = (keys(), Vec::new());
    for (index, pem) in pems.iter().enumerate() {
        let path = format!("default/private-key/{}", index + 1);
        uris.push(ResourceUri::parse(&format!("kbs:///{path}")).unwrap());
        keys.add(format!(r#"{{"{path}":"{}"}}"#, STANDARD.encode(pem)).as_bytes())
            .unwrap();
    }
    (keys, uris)
}

fn jwe_refusal(annotations: &BTreeMap<String, String>, pems: &[&str]) -> LayerKeyError {
    let (keys, uris) = private_keys(pems);
    match LayerKey::unwrap(annotations, &keys, &uris) {
        Err(error) => error,
        Ok(_) => panic!("it unwrapped"),
    }
}

#[test]
fn what_the_owner_wraps_the_guest_unwraps_in_both_versions() {
    let uri = |text: &str| ResourceUri::parse(text).unwrap();
    let recipients = [
        (uri("kbs:///other/key/1"), Secret::new(vec![9; 32])),
        (uri("/default/key/1"), Secret::new(KEK.to_vec())),
    ];
    let layer = LayerKey {
        symkey: [1; 32].into(),
        nonce: [2; 16],
        hmac: [3; 32],
        digest: Some("sha256:00".to_owned()),
    };
    for version in [PacketVersion::One, PacketVersion::Two] {
        let wrapped = wrap(&layer, &recipients, version, &[]).unwrap();
        assert_eq!(
            Recipient::of(&wrapped),
            ["kbs:///other/key/1", "kbs:///default/key/1"].map(|id| Recipient::Key {
                provider: "attestation-agent".to_owned(),
                id: id.to_owned()
            })
        );
        let key = LayerKey::unwrap(&wrapped, &keys(), &[]).unwrap();
        assert_eq!(
            (*key.symkey, key.nonce, key.hmac),
            ([1; 32], [2; 16], [3; 32])
        );
        assert_eq!(key.digest.as_deref(), Some("sha256:00"));
        let again = wrap(&layer, &recipients, version, &[]).unwrap();
        assert_ne!(wrapped, again, "nonces are fresh");
    }
    let short = [(uri("/default/key/1"), Secret::new(vec![9; 16]))];
    assert!(matches!(
        wrap(&layer, &short, PacketVersion::One, &[]),
        Err(SealError::KeyLength(_))
    ));
}

#[test]
fn what_the_owner_wraps_for_public_keys_their_private_keys_unwrap() {
    let public = [vector!("p256.pub.pem")];
    let public = public.map(|pem| PublicKey::parse(pem.as_bytes()).unwrap());
    let layer = LayerKey {
        symkey: [1; 32].into(),
        nonce: [2; 16],
        hmac: [3; 32],
        digest: None,
    };
    let wrapped = wrap(&layer, &[], PacketVersion::One, &public).unwrap();
    assert_eq!(wrapped.len(), 2, "no list of packets without packets");
    let (keys, uris) = private_keys(&[RSA, P256]);
    let key = LayerKey::unwrap(&wrapped, &keys, &uris).unwrap();
    assert_eq!(
        (*key.symkey, key.nonce, key.hmac),
        ([1; 32], [2; 16], [3; 32])
    );
    assert!(matches!(
        jwe_refusal(&wrapped, &[RSA]),
        LayerKeyError::Jwe { .. }
    ));
}
