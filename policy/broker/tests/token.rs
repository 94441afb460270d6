//! Tokens: whatever is not this broker's own, and of now, is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use agent_keys_protocol::TeeKey;
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
}
