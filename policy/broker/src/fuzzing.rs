//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use std::sync::LazyLock;

use agent_documents::{parse_json, parse_toml};
use agent_keys_protocol::{ResourceName, TeeKey, fuzzing::edited};
use hyper::Method;
use serde_json::{Value, json};

use crate::{
    audit::Line,
    configuration::Configuration,
    rego::NamedValues,
    rules, server,
    sessions::SessionId,
    token::{Attested, TokenKey},
    trust::TrustVector,
};

/// What a guest, the disk or the owner gives the broker; the first byte chooses.
pub fn asked(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match kind % 8 {
        0 => drop(parse_toml::<Configuration>(&text)),
        1 => line(rest),
        2 => token(rest),
        3 => drop(parse_json::<NamedValues>(rest)),
        4 => drop(parse_json::<Value>(rest).map(|value| TrustVector::parse(&value))),
        5 => drop(rules::pattern(&text)),
        6 => {
            if let Some(id) = SessionId::parse(&text) {
                assert_eq!(id.as_str(), text);
            }
        }
        _ => path(&text),
    }
}

/// What was read of an audit line reads the same once it is written.
fn line(bytes: &[u8]) {
    if let Ok(line) = parse_json::<Line>(bytes) {
        let written = serde_json::to_vec(&line).expect("what was read can be written");
        let again: Line = parse_json(&written).expect("what we write we read");
        assert_eq!(again, line);
    }
}

/// A genuine token with some of its bytes changed: none but the genuine one is taken.
fn token(edits: &[u8]) {
    static GENUINE: LazyLock<(TokenKey, String)> = LazyLock::new(|| {
        let key = TokenKey::generate().expect("there are random numbers");
        let key = TokenKey::parse(&key).expect("the key is one");
        let tee_key = TeeKey::generate().expect("there are random numbers");
        let attested = Attested {
            tee: "snp",
            claims: &json!({}),
            tee_key: tee_key.public(),
            nonce: "nonce",
            init_data_claims: &json!({}),
            log: &Value::Null,
            trust: &TrustVector::parse(&json!({"hardware": 2})).expect("it is one"),
            rules: "rules",
        };
        let token = key.issue(&attested, 0).expect("the key signs");
        (key, token)
    });
    let (key, genuine) = &*GENUINE;
    let edited = edited(genuine.as_bytes(), edits);
    let text = String::from_utf8_lossy(&edited);
    if key.verify(&text, "rules", 0).is_ok() {
        assert_eq!(text, *genuine);
    }
}

/// A path that names a resource names one file, below the store.
fn path(path: &str) {
    if let Some(name) = server::resource(&Method::GET, path)
        && let Ok(name) = ResourceName::parse(&name)
    {
        assert!(
            path.ends_with(&name.to_string()) && !path.contains(".."),
            "{path}"
        );
    }
}
