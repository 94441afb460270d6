//! What the owner seals as JWE, the guest opens.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use agent_keys::{Jwe, JweError, PrivateKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use policy_images::{PublicKey, SealError, seal_jwe};
use serde_json::Value;
use zeroize::Zeroizing;

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!("../../../agent/keys/tests/vectors/jwe/", $name))
    };
}

const RSA: &str = vector!("rsa-2048.pem");
const P256: &str = vector!("p256.pem");
const P384: &str = vector!("p384.pem");
const P521: &str = vector!("p521.pem");

fn open(jwe: &str, pem: &str) -> Result<Zeroizing<Vec<u8>>, JweError> {
    Jwe::parse(jwe.as_bytes())?.open(&PrivateKey::parse(pem.as_bytes()).unwrap())
}

fn vector(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

const PUBLIC: [(&str, &str); 4] = [
    (vector!("rsa-2048.pub.pem"), RSA),
    (vector!("p256.pub.pem"), P256),
    (vector!("p384.pub.pem"), P384),
    (vector!("p521.pub.pem"), P521),
];

fn public(pem: &str) -> PublicKey {
    PublicKey::parse(pem.as_bytes()).unwrap()
}

#[test]
fn what_is_sealed_opens_and_has_the_form_of_go_jose() {
    for (pem, own) in PUBLIC {
        let sealed = seal_jwe(b"secret", &[public(pem)]).unwrap();
        let text = String::from_utf8(sealed).unwrap();
        assert_eq!(**open(&text, own).unwrap(), *b"secret");
        let json = vector(&text);
        assert!(json["encrypted_key"].is_string() && json["header"].is_null());
        assert!(json["recipients"].is_null());
        let other = if own == RSA { P256 } else { RSA };
        assert!(matches!(open(&text, other), Err(JweError::Closed)));
    }
    let all = PUBLIC.map(|(pem, _)| public(pem));
    let text = String::from_utf8(seal_jwe(b"secret", &all).unwrap()).unwrap();
    for (_, own) in PUBLIC {
        assert_eq!(**open(&text, own).unwrap(), *b"secret");
    }
    let json = vector(&text);
    assert_eq!(
        json["protected"],
        URL_SAFE_NO_PAD.encode(r#"{"enc":"A256GCM"}"#)
    );
    assert!(json["encrypted_key"].is_null());
    let again = seal_jwe(b"secret", &all).unwrap();
    assert_ne!(
        vector(std::str::from_utf8(&again).unwrap())["iv"],
        json["iv"]
    );
}

#[test]
fn nobody_is_no_recipient_and_neither_are_too_many() {
    for count in [0, Jwe::RECIPIENTS_MAX + 1] {
        let keys: Vec<_> = (0..count).map(|_| public(PUBLIC[1].0)).collect();
        let sealed = seal_jwe(b"secret", &keys);
        assert!(matches!(sealed, Err(SealError::Recipients(n)) if n == count));
    }
}
