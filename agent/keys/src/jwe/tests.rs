use serde_json::{Value, json};

use super::*;

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!("../../tests/vectors/jwe/", $name))
    };
}

const RSA: &str = vector!("rsa-2048.pem");
const P256: &str = vector!("p256.pem");
const P384: &str = vector!("p384.pem");
const P521: &str = vector!("p521.pem");
const BY_JWCRYPTO: &str = vector!("four.json");

/// Made by skopeo, each with the keys that open it.
const BY_SKOPEO: [(&str, &[&str]); 5] = [
    (vector!("rsa-2048.json"), &[RSA]),
    (vector!("p256.json"), &[P256]),
    (vector!("p384.json"), &[P384]),
    (vector!("p521.json"), &[P521]),
    (vector!("two.json"), &[RSA, P256]),
];
/// Of the layer that they all belong to.
const PLAIN_DIGEST: &str =
    "sha256:5c5f68202584cb556732fe5c388b9bd0af5a899f6adcd1ad081fa3b17d3617a2";

fn key(pem: &str) -> PrivateKey {
    PrivateKey::parse(pem.as_bytes()).unwrap()
}

fn open(jwe: &str, pem: &str) -> Result<Zeroizing<Vec<u8>>, JweError> {
    Jwe::parse(jwe.as_bytes())?.open(&key(pem))
}

fn refusal(jwe: &Value) -> JweError {
    Jwe::parse(jwe.to_string().as_bytes()).unwrap_err()
}

fn vector(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A vector with one value set, or with it removed for `null`.
fn with(text: &str, path: &str, value: Value) -> Value {
    let mut jwe = vector(text);
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = jwe.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => drop(parent.remove(name)),
        value => drop(parent.insert(name.to_owned(), value)),
    }
    jwe
}

/// One with the protected header changed; it does not open any more, but parses or not.
fn with_protected(text: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut jwe = vector(text);
    let encoded = jwe["protected"].as_str().unwrap();
    let mut header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
    change(&mut header);
    jwe["protected"] = URL_SAFE_NO_PAD.encode(header.to_string()).into();
    jwe
}

#[test]
fn what_skopeo_encrypts_opens_with_the_keys_it_is_for_and_no_others() {
    for (jwe, keys) in BY_SKOPEO {
        for pem in [RSA, P256, P384, P521] {
            match open(jwe, pem) {
                Ok(plain) => {
                    let options: Value = serde_json::from_slice(&plain).unwrap();
                    assert_eq!(options["digest"], PLAIN_DIGEST);
                    assert!(keys.contains(&pem));
                }
                Err(JweError::Closed) => assert!(!keys.contains(&pem)),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn all_header_parts_and_aad_are_read_and_other_algorithms_passed_over() {
    for pem in [RSA, P384] {
        assert_eq!(**open(BY_JWCRYPTO, pem).unwrap(), *b"one secret, four ways");
    }
    let jwe = Jwe::parse(BY_JWCRYPTO.as_bytes()).unwrap();
    let shown: Vec<_> = jwe
        .recipients()
        .iter()
        .map(|one| (one.algorithm(), one.key_id().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            ("A256KW", "shared"),
            ("RSA-OAEP-256", "rsa"),
            ("ECDH-ES+A256KW", "ec"),
            ("ECDH-ES+A256KW on X25519", "edwards"),
        ]
    );
}

#[test]
fn a_jwe_for_nobody_we_know_names_the_algorithms() {
    let mut jwe = vector(BY_JWCRYPTO);
    let recipients = jwe["recipients"].as_array_mut().unwrap();
    recipients.drain(1..3);
    let error = open(&jwe.to_string(), RSA).unwrap_err();
    assert!(
        matches!(&error, JweError::Algorithms(names) if names == "`A256KW`, `ECDH-ES+A256KW on X25519`"),
        "{error}"
    );
}

#[test]
fn every_changed_byte_and_every_wrong_key_gives_one_and_the_same_error() {
    for (text, pem) in [
        (vector!("rsa-2048.json"), RSA),
        (vector!("p256.json"), P256),
    ] {
        for path in ["/encrypted_key", "/iv", "/ciphertext", "/tag"] {
            let error = open(&flip(text, path), pem).unwrap_err();
            assert!(matches!(error, JweError::Closed), "{path}: {error}");
        }
    }
    assert!(matches!(
        open(vector!("p256.json"), vector!("other-p256.pem")),
        Err(JweError::Closed)
    ));
    for path in [
        "/aad",
        "/recipients/2/header/apu",
        "/recipients/2/header/apv",
    ] {
        assert!(matches!(
            open(&flip(BY_JWCRYPTO, path), P384),
            Err(JweError::Closed)
        ));
    }
    // The header's bytes count, not what they mean.
    let spaced = with_protected(vector!("rsa-2048.json"), |header| {
        header["kid"] = "x".into();
    });
    assert!(matches!(
        open(&spaced.to_string(), RSA),
        Err(JweError::Closed)
    ));
}

/// A vector with one bit of one value changed.
fn flip(text: &str, path: &str) -> String {
    let mut jwe = vector(text);
    let value = jwe.pointer_mut(path).unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap();
    bytes[0] ^= 1;
    *value = URL_SAFE_NO_PAD.encode(bytes).into();
    jwe.to_string()
}

#[test]
fn a_member_given_twice_is_refused_by_name_at_any_depth() {
    let text = vector!("two.json");
    for (part, name) in [
        ("\"tag\":", "tag"),
        ("\"encrypted_key\":", "encrypted_key"),
        ("\"alg\":", "alg"),
        ("\"crv\":", "crv"),
    ] {
        let twice = text.replacen(part, &format!("{part}\"\",{part}"), 1);
        let error = Jwe::parse(twice.as_bytes()).unwrap_err();
        assert!(
            matches!(&error, JweError::Json(cause) if cause.to_string().contains(&format!("`{name}` is given twice"))),
            "{error}"
        );
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"enc":"A256GCM","enc":"A256GCM"}"#);
    let error = refusal(&with(text, "/protected", header.into()));
    assert!(matches!(&error, JweError::Protected(cause) if cause.to_string().contains("`enc`")));
    // And once in each of two headers.
    for path in ["/unprotected", "/recipients/1/header"] {
        let mut jwe = with(text, "/unprotected", json!({}));
        jwe.pointer_mut(path).unwrap()["enc"] = "A256GCM".into();
        assert!(matches!(refusal(&jwe), JweError::Overlap(name) if name == "enc"));
    }
    let shared = with(text, "/unprotected", json!({"alg": "RSA-OAEP"}));
    assert!(matches!(refusal(&shared), JweError::Overlap(name) if name == "alg"));
}

#[test]
fn critical_and_compressed_ones_are_refused_by_name_wherever_they_say_so() {
    let text = vector!("two.json");
    for (name, value) in [("crit", json!(["x"])), ("zip", json!("DEF"))] {
        let protected = with_protected(text, |header| header[name] = value.clone());
        let shared = with(text, "/unprotected", json!({ name: value }));
        let own = with(text, &format!("/recipients/1/header/{name}"), value);
        for jwe in [protected, shared, own] {
            assert!(matches!(refusal(&jwe), JweError::Parameter(found) if found == name));
        }
    }
}

#[test]
fn content_encryption_is_a256gcm_and_protected() {
    let text = vector!("two.json");
    let other = with_protected(text, |header| header["enc"] = "A256CBC-HS512".into());
    assert!(matches!(refusal(&other), JweError::Enc(name) if name == "A256CBC-HS512"));
    let mut open = with_protected(text, |header| *header = json!({"kid": "x"}));
    open["unprotected"] = json!({"enc": "A256GCM"});
    assert!(matches!(refusal(&open), JweError::Member("enc")));
    let none = with(text, "/protected", Value::Null);
    assert!(matches!(refusal(&none), JweError::Member("protected")));
}

#[test]
fn lengths_and_kinds_of_members_are_checked() {
    let two = vector!("two.json");
    let epk = "/recipients/0/header/epk";
    for (path, value, name) in [
        ("/iv".to_owned(), json!("AAAA"), "iv"),
        ("/iv".to_owned(), Value::Null, "iv"),
        ("/tag".to_owned(), json!("AAAA"), "tag"),
        ("/ciphertext".to_owned(), json!("A"), "ciphertext"),
        ("/ciphertext".to_owned(), json!("AAAA=="), "ciphertext"),
        ("/ciphertext".to_owned(), json!(7), "ciphertext"),
        ("/aad".to_owned(), json!("?"), "aad"),
        ("/protected".to_owned(), json!("?"), "protected"),
        ("/unprotected".to_owned(), json!([]), "unprotected"),
        ("/recipients".to_owned(), json!({}), "recipients"),
        ("/recipients".to_owned(), json!([7]), "recipients"),
        ("/recipients/0/header".to_owned(), json!("x"), "header"),
        ("/recipients/0/header/alg".to_owned(), Value::Null, "alg"),
        ("/recipients/0/header/kid".to_owned(), json!(7), "kid"),
        ("/recipients/0/header/apu".to_owned(), json!("?"), "apu"),
        (epk.to_owned(), Value::Null, "epk"),
        (format!("{epk}/crv"), Value::Null, "crv"),
        (format!("{epk}/kty"), json!("OKP"), "kty"),
        (format!("{epk}/x"), json!("AAAA"), "x"),
        (format!("{epk}/y"), Value::Null, "y"),
        // As long as a coordinate of another curve.
        (format!("{epk}/crv"), json!("P-384"), "x"),
    ] {
        let error = refusal(&with(two, &path, value));
        let found = match error {
            JweError::Member(found) => found,
            JweError::MemberLength(length) => length.member,
            other => panic!("{path}: {other}"),
        };
        assert_eq!(found, name, "{path}");
    }
    for text in [vector!("rsa-2048.json"), vector!("p256.json")] {
        for value in [json!("AAAA"), Value::Null] {
            let error = refusal(&with(text, "/encrypted_key", value));
            assert!(error.to_string().contains("`encrypted_key`"), "{error}");
        }
    }
}

#[test]
fn go_joses_repeated_key_is_taken_and_any_other_mixture_refused() {
    let two = vector!("two.json");
    assert!(vector(two)["encrypted_key"].is_string());
    let pure = with(two, "/encrypted_key", Value::Null);
    assert!(open(&pure.to_string(), P256).is_ok());
    for (path, value) in [
        ("/encrypted_key", json!("AAAA")),
        ("/header", json!({"alg": "RSA-OAEP"})),
    ] {
        assert!(matches!(refusal(&with(two, path, value)), JweError::Mixed));
    }
}

#[test]
fn recipients_and_bytes_are_bounded() {
    let two = vector!("two.json");
    let one = vector(two)["recipients"][1].clone();
    for (count, accepted) in [(0, false), (1, true), (64, true), (65, false)] {
        let mut jwe = with(two, "/encrypted_key", Value::Null);
        jwe["recipients"] = vec![one.clone(); count].into();
        let parsed = Jwe::parse(jwe.to_string().as_bytes());
        assert_eq!(parsed.is_ok(), accepted, "{count}");
        assert!(accepted || matches!(parsed, Err(JweError::Recipients(n)) if n == count));
    }
    let long = vec![b' '; BYTES_MAX + 1];
    assert!(matches!(Jwe::parse(&long), Err(JweError::Length)));
    let deep = "[".repeat(200_000);
    for bad in [deep.as_str(), "", "[]", "7", "{}x", "a.b.c.d.e"] {
        assert!(matches!(Jwe::parse(bad.as_bytes()), Err(JweError::Json(_))));
    }
    assert!(matches!(
        Jwe::parse(b"{}"),
        Err(JweError::Member("protected"))
    ));
}

#[test]
fn foreign_text_is_shortened_and_loses_its_control_characters() {
    let jwe = with_protected(vector!("two.json"), |header| {
        header["enc"] = format!("\u{1b}[2J{}", "x".repeat(500)).into();
    });
    let text = refusal(&jwe).to_string();
    assert!(text.len() < 200 && !text.contains('\u{1b}'), "{text}");
}
