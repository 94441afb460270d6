//! What binds evidence to a challenge and to the guest's key: the digest of both, as the
//! hardware signs it.

use aws_lc_rs::digest::{SHA384, digest};
use serde::Serialize;

use crate::{TeePublicKey, tee_key::Jwk};

/// What the hardware signs: a SHA-384 digest, and zeros after it where there is room.
pub type ReportData = [u8; 64];

/// Its members are in the order of RFC 8785, and so are those of [`Jwk`]: what `serde_json`
/// writes of it without spaces is canonical, because it has no numbers.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Bound<'a> {
    additional_evidence: &'a str,
    nonce: &'a str,
    tee_pubkey: Jwk,
}

/// The report data that binds evidence to a nonce, a key, and the additional evidence as it
/// is sent.
#[must_use]
pub fn report_data(nonce: &str, key: &TeePublicKey, additional_evidence: &str) -> ReportData {
    let bound = canonical(nonce, key, additional_evidence);
    let mut data = [0; 64];
    for (to, from) in data.iter_mut().zip(digest(&SHA384, &bound).as_ref()) {
        *to = *from;
    }
    data
}

fn canonical(nonce: &str, key: &TeePublicKey, additional_evidence: &str) -> Vec<u8> {
    let bound = Bound {
        additional_evidence,
        nonce,
        tee_pubkey: Jwk::from(key),
    };
    serde_json::to_vec(&bound).expect("texts are always written")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn golden_vectors_of_all_keys_give_their_report_data() {
        let vectors = include_bytes!("../tests/vectors/runtime-data.json");
        let vectors: Value = serde_json::from_slice(vectors).unwrap();
        let mut checked = 0;
        for vector in vectors["vectors"].as_array().unwrap() {
            let (Some(additional), Some(expected)) = (
                vector["input"]["additional-evidence"].as_str(),
                vector["snp_report_data_sha384"].as_str(),
            ) else {
                continue;
            };
            let nonce = vector["input"]["nonce"].as_str().unwrap();
            let key = serde_json::from_value(vector["input"]["tee-pubkey"].clone()).unwrap();
            assert_eq!(
                String::from_utf8(canonical(nonce, &key, additional)).unwrap(),
                vector["canonical_utf8"].as_str().unwrap()
            );
            assert_eq!(hex::encode(report_data(nonce, &key, additional)), expected);
            checked += 1;
        }
        assert!(checked >= 3, "{checked}");
    }
}
