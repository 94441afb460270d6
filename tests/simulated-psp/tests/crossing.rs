//! Messages cross with `kbs-types`, the types of Trustee and of its guests, in both directions:
//! our client speaks to a broker made of them, and a guest made of them to our broker.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../../../policy/broker/tests/bed/mod.rs"]
mod bed;
/// The server that plays a broker to our client.
#[path = "../../../agent/keys/broker/tests/support/mod.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod scripted;

use agent_documents::parse_json;
use agent_keys::{KeyProvider as _, ResourceUri};
use agent_keys_protocol as ours;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use ureq::http::StatusCode;

use self::{
    bed::{Bed, KEY, NAME},
    scripted::{Answer, Asked, NONCE, Seen, Server, answer},
};

const VECTORS: &str = include_str!("../../../agent/keys/protocol/tests/vectors/runtime-data.json");
const GENOA: &str =
    include_str!("../../../policy/appraisal/tests/vectors/kbs/snp-evidence-genoa.json");

/// A message of one side, read and written by the other and read again by the first.
fn crosses<One, Other>(message: &One)
where
    One: Serialize + DeserializeOwned,
    Other: Serialize + DeserializeOwned,
{
    let written = serde_json::to_vec(message).unwrap();
    let other: Other = parse_json(&written).unwrap();
    let returned = serde_json::to_vec(&other).unwrap();
    let read: One = parse_json(&returned).unwrap();
    assert_eq!(
        serde_json::to_value(message).unwrap(),
        serde_json::to_value(read).unwrap()
    );
}

/// The guests' keys of the vectors, of each kind.
fn keys() -> Vec<Value> {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let inputs = vectors["vectors"].as_array().unwrap().iter();
    let keys = inputs.filter_map(|one| one["input"].get("tee-pubkey").cloned());
    keys.collect()
}

#[test]
fn the_messages_of_the_handshake_cross_in_both_directions() {
    crosses::<ours::Request, kbs_types::Request>(&ours::Request::new("snp"));
    crosses::<kbs_types::Request, ours::Request>(&kbs_types::Request {
        version: ours::VERSION.to_owned(),
        tee: kbs_types::Tee::Snp,
        extra_params: json!(""),
    });
    for extra in [json!(""), json!({"selected-hash-algorithm": "sha384"})] {
        let theirs = kbs_types::Challenge {
            nonce: NONCE.to_owned(),
            extra_params: extra,
        };
        crosses::<kbs_types::Challenge, ours::Challenge>(&theirs);
        let text = serde_json::to_vec(&theirs).unwrap();
        let read: ours::Challenge = parse_json(&text).unwrap();
        assert_eq!(read.wants_log(), Ok(false));
        crosses::<ours::Challenge, kbs_types::Challenge>(&read);
    }
    crosses::<ours::Details, kbs_types::ErrorInformation>(&ours::Details::new("PolicyDeny", "no"));
    crosses::<kbs_types::ErrorInformation, ours::Details>(&kbs_types::ErrorInformation {
        error_type: "x".to_owned(),
        detail: "y".to_owned(),
    });
}

#[test]
fn attestations_cross_with_keys_of_every_kind_and_real_evidence() {
    assert_eq!(keys().len(), 9);
    for key in keys() {
        for init_data in [Value::Null, json!({"format": "toml", "body": "x = 1\n"})] {
            let body = json!({
                "init-data": init_data,
                "runtime-data": {"nonce": NONCE, "tee-pubkey": key},
                "tee-evidence": {
                    "primary_evidence": serde_json::from_str::<Value>(GENOA).unwrap(),
                    "additional_evidence": "",
                },
            });
            let body = body.to_string();
            let own: ours::Attestation = parse_json(body.as_bytes()).unwrap();
            crosses::<ours::Attestation, kbs_types::Attestation>(&own);
            let theirs: kbs_types::Attestation = parse_json(body.as_bytes()).unwrap();
            // Upstream writes null where we write nothing.
            let written = serde_json::to_vec(&theirs).unwrap();
            assert_eq!(parse_json::<ours::Attestation>(&written).unwrap(), own);
        }
    }
    let post_quantum = json!({"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": "AAAA"});
    assert!(serde_json::from_value::<kbs_types::TeePubKey>(post_quantum.clone()).is_ok());
    assert!(serde_json::from_value::<ours::TeePublicKey>(post_quantum).is_err());
}

#[test]
fn both_derive_one_report_data_from_the_same_message() {
    for key in keys() {
        for additional in ["", r#"{"nvidia":{"device_evidence_list":[]}}"#] {
            let own: ours::TeePublicKey = serde_json::from_value(key.clone()).unwrap();
            let theirs: kbs_types::TeePubKey = serde_json::from_value(key.clone()).unwrap();
            let bound = ours::report_data(NONCE, &own, additional);
            assert_eq!(bound, their_report_data(NONCE, &theirs, additional));
        }
    }
}

/// As Trustee's guests bind evidence. Without numbers and odd characters, sorted JSON is canonical.
fn their_report_data(nonce: &str, key: &kbs_types::TeePubKey, additional: &str) -> [u8; 64] {
    let bound = json!({"additional-evidence": additional, "nonce": nonce, "tee-pubkey": key});
    let digest = kbs_types::HashAlgorithm::Sha384.digest(bound.to_string().as_bytes());
    let mut data = [0; 64];
    data[..48].copy_from_slice(&digest);
    data
}

#[test]
fn a_response_crosses_and_its_header_is_authenticated_alike() {
    for key in keys() {
        let key: ours::TeePublicKey = serde_json::from_value(key).unwrap();
        let sealed = key.seal(KEY).unwrap();
        let text = serde_json::to_vec(&sealed).unwrap();
        let theirs: kbs_types::Response = parse_json(&text).unwrap();
        // They authenticate the header that they write of what they read.
        assert_eq!(
            theirs.protected.generate_aad().unwrap(),
            sealed.protected.as_bytes()
        );
        crosses::<ours::Response, kbs_types::Response>(&sealed);
    }
    let own = ours::TeeKey::generate().unwrap();
    let sealed = serde_json::to_vec(&own.public().seal(KEY).unwrap()).unwrap();
    let theirs: kbs_types::Response = parse_json(&sealed).unwrap();
    let written = serde_json::to_vec(&theirs).unwrap();
    assert_eq!(own.open(&written).unwrap().expose(), KEY);
}

/// A broker that reads and writes with their types.
fn theirs(asked: &Asked, seen: &mut Seen) -> Answer {
    let write = |body: &Value| answer(200, body.to_string());
    match asked.path.as_str() {
        "/kbs/v0/auth" => {
            let request: kbs_types::Request = parse_json(&asked.body).unwrap();
            assert_eq!(request.tee, kbs_types::Tee::Snp);
            let challenge = kbs_types::Challenge {
                nonce: NONCE.to_owned(),
                extra_params: json!({"selected-hash-algorithm": kbs_types::HashAlgorithm::Sha384}),
            };
            let mut answer = write(&json!(challenge));
            let cookie = "Set-Cookie: kbs-session-id=abc; Expires=Thu, 01 Jan 2026 00:00:00 GMT";
            answer.headers.push(cookie.to_owned());
            answer
        }
        "/kbs/v0/attest" => {
            let sent: kbs_types::Attestation = parse_json(&asked.body).unwrap();
            let (data, evidence) = (&sent.runtime_data, &sent.tee_evidence);
            let additional = &evidence.additional_evidence;
            let bound = their_report_data(&data.nonce, &data.tee_pubkey, additional);
            let report = &evidence.primary_evidence["attestation_report"];
            assert_eq!(report["report_data"], json!(bound.to_vec()));
            seen.key = Some(serde_json::from_value(json!(data.tee_pubkey)).unwrap());
            write(&json!({"token": "e30.eyJpYXQiOjEsImV4cCI6MzAxfQ.c2ln"}))
        }
        _ => {
            let sealed = seen.key.as_ref().unwrap().seal(KEY).unwrap();
            let text = serde_json::to_vec(&sealed).unwrap();
            write(&json!(parse_json::<kbs_types::Response>(&text).unwrap()))
        }
    }
}

#[test]
fn our_client_gets_a_key_of_a_broker_made_of_their_types() {
    let server = Server::start(theirs);
    let broker = server.broker();
    let uri = ResourceUri::parse(&format!("kbs:///{NAME}")).unwrap();
    assert_eq!(broker.fetch(&uri).unwrap().expose(), KEY);
    assert_eq!(broker.attestations(), 1);
}

#[test]
fn a_guest_made_of_their_types_gets_a_key_of_our_broker() {
    let bed = Bed::new("measurement_log = \"optional\"\n");
    let request = kbs_types::Request {
        version: ours::VERSION.to_owned(),
        tee: kbs_types::Tee::Snp,
        extra_params: json!({"supported-hash-algorithms": kbs_types::HashAlgorithm::list_all()}),
    };
    let mut begun = bed.post("auth", "", &json!(request).to_string());
    let cookie = begun.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let text = begun.body_mut().read_to_string().unwrap();
    let challenge: kbs_types::Challenge = serde_json::from_str(&text).unwrap();
    assert_eq!(STANDARD.decode(&challenge.nonce).unwrap().len(), 32);

    let key = ours::TeeKey::generate().unwrap();
    let public: kbs_types::TeePubKey = serde_json::from_value(json!(key.public())).unwrap();
    let bound = their_report_data(&challenge.nonce, &public, "");
    let evidence = bed.evidence_over(&challenge.nonce, &key, "", &bound);
    let attestation = kbs_types::Attestation {
        init_data: None,
        runtime_data: kbs_types::RuntimeData {
            nonce: challenge.nonce,
            tee_pubkey: public,
        },
        tee_evidence: kbs_types::CompositeEvidence {
            primary_evidence: evidence.tee_evidence.primary_evidence,
            additional_evidence: String::new(),
        },
    };
    let attested = bed.post("attest", &cookie, &json!(attestation).to_string());
    assert_eq!(attested.status(), StatusCode::OK);
    let (status, sealed) = bed.get(NAME, ("Cookie", &cookie));
    assert_eq!(status, StatusCode::OK, "{sealed}");
    let theirs: kbs_types::Response = serde_json::from_str(&sealed).unwrap();
    let aad = theirs.protected.generate_aad().unwrap();
    assert!(sealed.contains(std::str::from_utf8(&aad).unwrap()));
    let written = serde_json::to_vec(&theirs).unwrap();
    assert_eq!(key.open(&written).unwrap().expose(), KEY);

    // What it is refused with, they read too.
    let (status, text) = bed.get("default/key/none", ("Cookie", &cookie));
    assert_eq!(status, StatusCode::NOT_FOUND);
    let refused: kbs_types::ErrorInformation = serde_json::from_str(&text).unwrap();
    assert!(refused.error_type.ends_with("/errors/ResourceNotFound"));
}
