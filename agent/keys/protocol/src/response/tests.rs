use serde_json::{Value, json};

use super::*;

const VECTORS: &[u8] = include_bytes!("../../tests/vectors/jwe.json");

macro_rules! pem {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/vectors/", $name, ".pkcs8.pem"))
    };
}

fn vectors() -> Vec<(TeeKey, Value, Vec<u8>)> {
    let vectors: Vec<Value> = serde_json::from_slice(VECTORS).unwrap();
    let one = |vector: Value| {
        let pem: &[u8] = match vector["key"].as_str().unwrap() {
            "ec-p256" => pem!("ec-p256"),
            "ec-p521" => pem!("ec-p521"),
            _ => pem!("rsa-2048"),
        };
        let jwk = vector["private_jwk"].as_object().unwrap();
        let public = ["kty", "crv", "alg", "x", "y", "n", "e"];
        let public: Value = public
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), jwk.get(*name)?.clone())))
            .collect();
        let key = TeeKey::of(
            agent_keys::PrivateKey::parse(pem).unwrap(),
            serde_json::from_value(public).unwrap(),
        );
        let plain = hex::decode(vector["plaintext_hex"].as_str().unwrap()).unwrap();
        (key, vector["response"].clone(), plain)
    };
    vectors.into_iter().map(one).collect()
}

fn open(key: &TeeKey, response: &Value) -> Result<Secret, OpenError> {
    key.open(response.to_string().as_bytes())
}

#[test]
fn golden_responses_open_whatever_the_order_of_their_headers() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 4);
    for (key, response, plain) in vectors {
        assert_eq!(open(&key, &response).unwrap().expose(), plain);
    }
}

#[test]
fn what_is_sealed_for_a_key_opens_with_it_and_no_other() {
    for (key, other, _) in vectors() {
        let sealed = key.public().seal(b"secret").unwrap();
        let sealed = serde_json::to_value(&sealed).unwrap();
        assert_eq!(open(&key, &sealed).unwrap().expose(), b"secret");
        let stranger = TeeKey::generate().unwrap();
        assert!(open(&stranger, &sealed).is_err());
        assert!(open(&stranger, &other).is_err());
        // As `kbs-types` writes its header, which it authenticates from memory.
        let header = URL_SAFE_NO_PAD.decode(sealed["protected"].as_str().unwrap());
        let header = String::from_utf8(header.unwrap()).unwrap();
        let begin = format!(r#"{{"alg":"{}","enc":"A256GCM""#, key.public().algorithm());
        assert!(header.starts_with(&begin), "{header}");
    }
}

#[test]
fn a_change_in_any_part_is_refused() {
    for (key, response, _) in vectors() {
        for part in ["protected", "encrypted_key", "iv", "ciphertext", "tag"] {
            let text = response[part].as_str().unwrap();
            let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            for at in [0, bytes.len() / 2, bytes.len() - 1] {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let mut bad = response.clone();
                bad[part] = encode(&changed).into();
                assert!(open(&key, &bad).is_err(), "{part} {at}");
            }
            for length in [0, bytes.len() - 1] {
                let mut bad = response.clone();
                bad[part] = encode(&bytes[..length]).into();
                assert!(open(&key, &bad).is_err(), "{part} cut to {length}");
            }
        }
    }
}

#[test]
fn a_wrapped_key_that_is_too_short_is_refused_before_it_is_looked_into() {
    for (key, mut response, _) in vectors() {
        for length in [0, 1, 7, 8, 39] {
            response["encrypted_key"] = encode(&vec![1; length]).into();
            let error = open(&key, &response).unwrap_err().to_string();
            assert!(error.contains("encrypted_key"), "{error}");
        }
    }
}

#[test]
fn other_algorithms_and_named_keys_are_refused() {
    for (key, response, _) in vectors() {
        let header = URL_SAFE_NO_PAD.decode(response["protected"].as_str().unwrap());
        let header: Value = serde_json::from_slice(&header.unwrap()).unwrap();
        for (member, value) in [
            ("alg", json!("dir")),
            ("alg", json!("RSA1_5")),
            ("enc", json!("A128GCM")),
            ("kid", json!("another")),
            ("zip", json!("DEF")),
            ("crit", json!(["x"])),
        ] {
            let mut header = header.clone();
            header[member] = value;
            let mut bad = response.clone();
            bad["protected"] = encode(header.to_string().as_bytes()).into();
            let error = open(&key, &bad).unwrap_err();
            if member == "kid" {
                assert!(matches!(error, OpenError::KeyId), "{error}");
            }
        }
    }
}

#[test]
fn only_the_members_of_a_response_are_read() {
    let (key, response, _) = vectors().remove(0);
    for member in ["recipients", "header", "unprotected", "extra"] {
        let mut bad = response.clone();
        bad[member] = json!({});
        assert!(matches!(open(&key, &bad), Err(OpenError::Json(_))));
    }
    for bad in ["", "[]", "{}", "7"] {
        assert!(matches!(key.open(bad.as_bytes()), Err(OpenError::Json(_))));
    }
}
