//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use std::sync::LazyLock;

use agent_documents::parse_json;
pub use agent_keys::fuzzing::edited;

use crate::{Attestation, Challenge, Details, Request, ResourceName, TeeKey, Token, report_data};

/// A message, which the first byte chooses.
pub fn message(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else {
        return;
    };
    match kind % 6 {
        0 => drop(parse_json::<Challenge>(body).map(|challenge| challenge.wants_log())),
        1 => drop(parse_json::<Token>(body)),
        2 => drop(parse_json::<Details>(body)),
        3 => attestation(body),
        4 => drop(parse_json::<Request>(body)),
        _ => drop(std::str::from_utf8(body).map(ResourceName::parse)),
    }
}

/// What was read of an attestation reads the same once it is written.
fn attestation(body: &[u8]) {
    let Ok(read) = parse_json::<Attestation>(body) else {
        return;
    };
    let data = &read.runtime_data;
    let _ = report_data(
        &data.nonce,
        &data.tee_pubkey,
        &read.tee_evidence.additional_evidence,
    );
    let _ = read.tee_evidence.log();
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    if let Ok(again) = parse_json::<Attestation>(&written) {
        assert_eq!(again.runtime_data, data.clone());
    }
}

/// A response to a key that has sealed something else; nothing but that opens.
pub fn response(bytes: &[u8]) {
    static KEY: LazyLock<(TeeKey, Vec<u8>)> = LazyLock::new(|| {
        let key = TeeKey::generate().expect("there are random numbers");
        let sealed = key.public().seal(b"secret").expect("the key is one");
        let sealed = serde_json::to_vec(&sealed).expect("texts are always written");
        (key, sealed)
    });
    let (key, genuine) = &*KEY;
    if let Ok(secret) = key.open(&edited(genuine, bytes)) {
        assert_eq!(secret.expose(), b"secret");
    }
}
