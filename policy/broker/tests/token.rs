//! Tokens: whatever is not this broker's own, and of now, is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use agent_keys_protocol::TeeKey;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policy_broker::{
    token::{Attested, TokenError, TokenKey},
    trust::TrustVector,
};
use serde_json::{Value, json};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn key() -> TokenKey {
    TokenKey::parse(&TokenKey::generate().unwrap()).unwrap()
}

fn issued(key: &TokenKey) -> String {
    let tee_key = TeeKey::generate().unwrap();
    let attested = Attested {
        tee: "snp",
        claims: &json!({"report_data": "00", "init_data": "11"}),
        tee_key: tee_key.public(),
        nonce: "nonce",
        init_data_claims: &json!({}),
        log: &Value::Null,
        trust: &TrustVector::parse(&json!({"hardware": 2})).unwrap(),
        rules: "rules",
    };
    key.issue(&attested, NOW).unwrap()
}

/// A token whose claims were changed before the broker's own key signed them.
fn signed(stored: &[u8], token: &str, change: impl Fn(&mut Value)) -> String {
    let (header, rest) = token.split_once('.').unwrap();
    let payload = rest.split('.').next().unwrap();
    let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    change(&mut claims);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, stored).unwrap();
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn refused(key: &TokenKey, token: &str, now: i64) -> TokenError {
    key.verify(token, "rules", now).err().unwrap()
}

#[test]
fn nothing_in_a_token_is_the_tokens_to_choose() {
    let (own, other) = (key(), key());
    let token = issued(&own);
    assert!(own.verify(&token, "rules", NOW).is_ok());
    let (_, rest) = token.split_once('.').unwrap();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"});
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256", "typ": "JWT"}),
        json!({"alg": "ES256", "typ": "JWT", "jwk": jwk}),
        json!({"alg": "ES256", "jku": "https://example.com/keys"}),
        json!({"alg": "ES256", "kid": "1"}),
    ] {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let forged = format!("{header}.{rest}");
        assert_eq!(refused(&own, &forged, NOW), TokenError::Header);
    }
    assert_eq!(refused(&own, &issued(&other), NOW), TokenError::Header);
    // Our header on claims that another key signed.
    let (header, _) = token.split_once('.').unwrap();
    let foreign = issued(&other);
    let (_, signed) = foreign.split_once('.').unwrap();
    let mixed = format!("{header}.{signed}");
    assert_eq!(refused(&own, &mixed, NOW), TokenError::Signature);
}

#[test]
fn issuer_profile_status_and_times_are_compared_exactly() {
    let stored = TokenKey::generate().unwrap();
    let own = TokenKey::parse(&stored).unwrap();
    let token = issued(&own);
    let same = signed(&stored, &token, |_| {});
    assert!(own.verify(&same, "rules", NOW).is_ok());
    let status = "/submods/cpu0/ear.status";
    for (place, value) in [
        ("/iss", json!("coco-attestation-service")),
        ("/iss", json!("CoCo-Attestation-Service ")),
        ("/iss", json!("CoCo-Attestation-Service.example.com")),
        ("/iss", json!("CoCo-Attestation-Servic")),
        ("/iss", json!(["CoCo-Attestation-Service"])),
        ("/iss", json!(null)),
        ("/eat_profile", json!("tag:github.com,2023:veraison/ear")),
        (status, json!("Affirming")),
        (status, json!("warning")),
        (status, json!("none")),
        (status, json!(2)),
        ("/exp", json!("1800000300")),
        ("/exp", json!(1.8e9)),
        ("/exp", json!(u64::MAX)),
        ("/exp", json!(1e300)),
        ("/iat", json!(u64::MAX)),
        ("/iat", json!(null)),
    ] {
        let change = |claims: &mut Value| *claims.pointer_mut(place).unwrap() = value.clone();
        let changed = signed(&stored, &token, change);
        let refused = refused(&own, &changed, NOW);
        assert_eq!(refused, TokenError::Claims, "{place} {value}");
    }
}

#[test]
fn a_token_holds_five_minutes_and_not_under_other_rules() {
    let own = key();
    let token = issued(&own);
    for now in [NOW - DAY, NOW - 1, NOW + 300, NOW + DAY] {
        assert_eq!(refused(&own, &token, now), TokenError::Time, "{now}");
    }
    assert!(own.verify(&token, "rules", NOW + 299).is_ok());
    let changed = own.verify(&token, "other", NOW).err();
    assert_eq!(changed, Some(TokenError::Rules));
}

#[test]
fn the_claims_are_those_of_trustee() {
    let token = issued(&key());
    let payload = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(claims["iss"], "CoCo-Attestation-Service");
    assert_eq!(claims["exp"].as_i64(), Some(NOW + 300));
    let cpu = &claims["submods"]["cpu0"];
    assert_eq!(cpu["ear.status"], "affirming");
    assert_eq!(cpu["ear.trustworthiness-vector"]["hardware"], 2);
    let evidence = &cpu["ear.veraison.annotated-evidence"];
    assert_eq!(evidence["runtime_data_claims"]["tee-pubkey"]["kty"], "EC");
    // What Trustee documents of a token, but for what another TEE claims, has the same form here.
    let example = include_bytes!("vectors/example-ear-claims.json");
    let mut example: Value = serde_json::from_slice(example).unwrap();
    let theirs = &mut example["submods"]["cpu0"]["ear.veraison.annotated-evidence"];
    drop(theirs.as_object_mut().unwrap().remove("sgx"));
    assert_same_form(&example, &claims, "");
}

/// Each member of the one is in the other, and of the same type, unless it is null.
fn assert_same_form(one: &Value, other: &Value, place: &str) {
    assert!(
        one.is_null() || std::mem::discriminant(one) == std::mem::discriminant(other),
        "{place}: {one} and {other}"
    );
    // A trust vector has the claims that a policy makes.
    let Some(members) = one.as_object().filter(|_| !place.ends_with("-vector")) else {
        return;
    };
    for (name, value) in members {
        let found = other
            .get(name)
            .unwrap_or_else(|| panic!("{place}/{name} is missing"));
        assert_same_form(value, found, &format!("{place}/{name}"));
    }
}
