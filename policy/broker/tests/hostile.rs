//! Guests, and whoever poses as one, against a broker on a socket with TLS.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod bed;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use agent_keys_protocol::{TeeKey, log_evidence, report_data};
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policy_broker::{
    identity,
    token::{Attested, TokenKey},
    trust::TrustVector,
};
use serde_json::{Value, json};
use ureq::http::StatusCode;

use self::bed::{Bed, KEY, NAME, log};

const DAY: i64 = 86_400;
/// Beginning of what a broker of another project endorses its token keys with.
const FOREIGN_JWKS: [&str; 7] = [
    include_str!("vectors/token-jwk/scenario01-jwk.json"),
    include_str!("vectors/token-jwk/scenario02-jwk.json"),
    include_str!("vectors/token-jwk/scenario03-jwk.json"),
    include_str!("vectors/token-jwk/scenario04-jwk.json"),
    include_str!("vectors/token-jwk/scenario05-jwk.json"),
    include_str!("vectors/token-jwk/scenario06-jwk.json"),
    include_str!("vectors/token-jwk/scenario07-jwk.json"),
];

#[test]
fn evidence_for_another_nonce_is_refused_wherever_the_nonce_stands() {
    let bed = Bed::new("");
    let (key, log) = (TeeKey::generate().unwrap(), log(true, 1));
    let (_, other) = bed.begin();
    let (cookie, challenge) = bed.begin();
    let mut told = bed.evidence(&challenge.nonce, &key, &log);
    told.runtime_data.nonce = other.nonce.clone();
    assert_eq!(bed.refusal(&told, &cookie), "refused by nonce");
    let (cookie, challenge) = bed.begin();
    let additional = log_evidence(log.as_bytes());
    let signed = report_data(&other.nonce, key.public(), &additional);
    let signed = bed.evidence_over(&challenge.nonce, &key, &additional, &signed);
    assert_eq!(bed.refusal(&signed, &cookie), "refused by report-data");
}

#[test]
fn a_log_that_the_report_does_not_bind_is_refused() {
    let bed = Bed::new("");
    let key = TeeKey::generate().unwrap();
    for additional in [
        log_evidence(log(true, 2).as_bytes()),
        log_evidence(log(true, 1).as_bytes()) + " ",
        String::new(),
    ] {
        let (cookie, challenge) = bed.begin();
        let mut evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
        evidence.tee_evidence.additional_evidence = additional;
        let refused = bed.refusal(&evidence, &cookie);
        assert!(refused.contains("report-data"), "{refused}");
    }
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn get_with(bed: &Bed, token: &str) -> (StatusCode, String) {
    bed.get(NAME, ("Authorization", &format!("Bearer {token}")))
}

fn assert_no_token(bed: &Bed, token: &str) {
    let (status, text) = get_with(bed, token);
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{text}");
    assert!(text.contains("TokenVerifierError"), "{text}");
}

/// The header and the claims of a token.
fn parts(token: &str) -> (Value, Value) {
    let mut parts = token.split('.');
    let mut next = || decoded(parts.next().unwrap());
    (next(), next())
}

#[test]
fn a_token_of_another_time_is_refused_and_one_of_now_is_not() {
    let bed = Bed::new("");
    let (_, token, key) = bed.attested(&log(true, 1));
    let rules = parts(&token).1["kata-cc.rules"].clone();
    let store = identity::open_store(&bed.directory(), &bed.place.path().join("store.key"));
    let own = identity::open(&bed.directory(), &store.unwrap()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let issued = |at| issued(&own.token, key.public(), rules.as_str().unwrap(), at);
    for other in [now - DAY, now - 300, now + 60, now + DAY, 0, i64::MAX] {
        assert_no_token(&bed, &issued(other));
    }
    let (status, sealed) = get_with(&bed, &issued(now));
    assert_eq!(status, StatusCode::OK, "{sealed}");
    assert_eq!(key.open(sealed.as_bytes()).unwrap().expose(), KEY);
}

fn issued(
    own: &TokenKey,
    tee_key: &agent_keys_protocol::TeePublicKey,
    rules: &str,
    at: i64,
) -> String {
    let attested = Attested {
        tee: "snp",
        claims: &json!({}),
        tee_key,
        nonce: "nonce",
        init_data_claims: &json!({}),
        log: &Value::Null,
        trust: &TrustVector::parse(&json!({"hardware": 2})).unwrap(),
        rules,
    };
    own.issue(&attested, at).unwrap()
}

#[test]
fn a_token_of_a_foreign_key_gets_nothing_and_no_key_is_fetched_for_it() {
    let bed = Bed::new("");
    let (_, token, _) = bed.attested(&log(true, 1));
    let (own, claims) = parts(&token);
    let claims = encoded(&claims);
    let random = SystemRandom::new();
    let foreign = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = foreign.public_key().as_ref();
    let coordinate = |part| URL_SAFE_NO_PAD.encode(&point[part]);
    let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256",
        "x": coordinate(1..33), "y": coordinate(33..65)});
    // Whoever fetched a key would be seen here.
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let keys = format!("http://{}/keys", elsewhere.local_addr().unwrap());
    let mut headers = vec![
        json!({"alg": "ES256", "typ": "JWT", "jwk": jwk}),
        json!({"alg": "ES256", "typ": "JWT", "jku": keys}),
        json!({"alg": "ES256", "typ": "JWT", "x5u": keys, "jwk": jwk}),
        json!({"alg": "ES256", "typ": "JWT", "kid": "../../../store.key"}),
        json!({"alg": "none"}),
        own.clone(),
    ];
    for jwk in FOREIGN_JWKS {
        let jwk: Value = serde_json::from_str(jwk).unwrap();
        headers.push(json!({"alg": jwk["alg"], "typ": "JWT", "jwk": jwk}));
    }
    for header in headers {
        let signed = format!("{}.{claims}", encoded(&header));
        let signature = foreign.sign(&random, signed.as_bytes()).unwrap();
        let signature = URL_SAFE_NO_PAD.encode(signature);
        assert_no_token(&bed, &format!("{signed}.{signature}"));
        assert_no_token(&bed, &format!("{signed}."));
    }
    // The public key, taken for a secret that both sides share.
    let signed = format!("{}.{claims}", encoded(&json!({"alg": "HS256"})));
    for secret in [own["jwk"].to_string(), own["jwk"]["x"].to_string()] {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, signed.as_bytes()));
        assert_no_token(&bed, &format!("{signed}.{tag}"));
    }
    assert!(elsewhere.accept().is_err());
}

#[test]
fn a_thousand_sessions_that_never_finish_keep_nobody_out() {
    let bed = Bed::new("");
    let (first, challenge) = bed.begin();
    for _ in 0..1000 {
        bed.begin();
    }
    let health = bed.url.replace("/kbs/v0", "/healthz");
    let mut health = bed.agent.get(health).call().unwrap();
    let health: Value = serde_json::from_reader(health.body_mut().as_reader()).unwrap();
    assert_eq!(health["waiting"], 1001);
    // Also one that began before them all.
    let key = TeeKey::generate().unwrap();
    let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
    bed.attest(&first, &evidence).unwrap();
    assert_eq!(bed.get(NAME, ("Cookie", &first)).0, StatusCode::OK);
}

#[test]
fn bodies_with_a_member_that_is_missing_of_another_kind_or_too_deep_are_refused() {
    let bed = Bed::new("");
    let key = TeeKey::generate().unwrap();
    let changes: [fn(&mut Value); 9] = [
        |body| drop(body.as_object_mut().unwrap().remove("runtime-data")),
        |body| drop(body.as_object_mut().unwrap().remove("tee-evidence")),
        |body| body["runtime-data"]["nonce"] = json!(7),
        |body| body["runtime-data"]["tee-pubkey"]["alg"] = json!("RSA1_5"),
        |body| body["runtime-data"]["tee-pubkey"]["crv"] = json!("P-521"),
        |body| body["runtime-data"]["tee-pubkey"]["d"] = json!("AAAA"),
        |body| body["tee-evidence"]["additional_evidence"] = json!({}),
        |body| body["init-data"] = json!("toml"),
        |body| body["tee-evidence"]["primary_evidence"] = deep(),
    ];
    for change in changes {
        let (cookie, challenge) = bed.begin();
        let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
        let mut body = serde_json::to_value(&evidence).unwrap();
        change(&mut body);
        let mut answer = bed.post("attest", &cookie, &body.to_string());
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{text}");
        assert!(text.contains("SerdeError"), "{text}");
    }
    // The broker is there still.
    bed.attested(&log(true, 1));
}

fn deep() -> Value {
    (0..130).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn evidence_with_the_key_of_no_curve_gets_nothing_that_opens() {
    let bed = Bed::new("");
    let key = TeeKey::generate().unwrap();
    let mut jwk = serde_json::to_value(key.public()).unwrap();
    // A point that is on no curve; the report binds it as it is.
    jwk["y"] = jwk["x"].clone();
    let (cookie, challenge) = bed.begin();
    let additional = log_evidence(log(true, 1).as_bytes());
    let public = serde_json::from_value(jwk).unwrap();
    let bound = report_data(&challenge.nonce, &public, &additional);
    let mut evidence = bed.evidence_over(&challenge.nonce, &key, &additional, &bound);
    evidence.runtime_data.tee_pubkey = public;
    bed.attest(&cookie, &evidence).unwrap();
    let (status, text) = bed.get(NAME, ("Cookie", &cookie));
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text.contains("JweError"), "{text}");
}

/// Whether a file below a directory holds these bytes.
fn holds(directory: &Path, marker: &[u8]) -> bool {
    let mut entries = fs::read_dir(directory).unwrap().map(|one| one.unwrap());
    entries.any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, marker);
        }
        let content = fs::read(&path).unwrap();
        content.windows(marker.len()).any(|part| part == marker)
    })
}

#[test]
fn no_file_of_the_broker_holds_what_it_released_nor_a_token_nor_a_session() {
    let bed = Bed::new("");
    let (cookie, token, key) = bed.attested(&log(true, 1));
    let (_, sealed) = bed.get(NAME, ("Cookie", &cookie));
    assert_eq!(key.open(sealed.as_bytes()).unwrap().expose(), KEY);
    let session = cookie.split_once('=').unwrap().1;
    let signature = token.rsplit('.').next().unwrap();
    for marker in [KEY, session.as_bytes(), signature.as_bytes()] {
        assert!(!holds(bed.place.path(), marker));
    }
    assert!(holds(bed.place.path(), NAME.as_bytes()));
}
