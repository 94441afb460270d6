//! What a report binds of the paravisor's runtime data: the TPM's key, and what the guest
//! had included.

use agent_evidence::{
    ReportData, Sha256Digest,
    azure::{HclReport, Quote},
};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

const AK_KEY_ID: &str = "HCLAkPub";

/// RSA key of the TPM, as its components.
pub(super) struct AttestationKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

#[derive(Deserialize)]
struct RuntimeData {
    keys: Vec<Jwk>,
    /// 64 bytes in hexadecimal; missing where the guest never gave any.
    #[serde(default, rename = "user-data")]
    user_data: Option<ReportData>,
}

/// What the runtime data say. To be believed only when the report binds them.
pub(super) struct BoundData {
    pub(super) key: AttestationKey,
    /// What the guest had the paravisor include.
    pub(super) user_data: Option<ReportData>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    #[serde(default)]
    kty: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

impl AttestationKey {
    /// Whether this key signed the quote's message.
    pub(super) fn signed(&self, quote: &Quote) -> bool {
        let key = RsaPublicKeyComponents {
            n: &self.modulus,
            e: &self.exponent,
        };
        key.verify(
            &RSA_PKCS1_2048_8192_SHA256,
            &quote.message,
            &quote.signature,
        )
        .is_ok()
    }
}

/// The report data that bind the runtime data.
pub(super) fn bound_report_data(hcl: &HclReport) -> ReportData {
    let Sha256Digest(digest) = Sha256Digest::of(&[hcl.runtime_data()]);
    ReportData::padded(&digest).expect("a sha-256 digest fits")
}

/// Reads the runtime data.
pub(super) fn bound_data(hcl: &HclReport) -> Result<BoundData, &'static str> {
    let data: RuntimeData = agent_documents::parse_json(hcl.runtime_data())
        .map_err(|_| "runtime data that are not json of its form")?;
    Ok(BoundData {
        key: attestation_key(&data.keys)?,
        user_data: data.user_data,
    })
}

/// The attestation key, chosen by its id alone: `key_ops` differ between paravisors.
fn attestation_key(keys: &[Jwk]) -> Result<AttestationKey, &'static str> {
    let mut named = keys.iter().filter(|key| key.kid == AK_KEY_ID);
    match (named.next(), named.next()) {
        (Some(key), None) if key.kty == "RSA" => {
            let decode = |text: &str| {
                URL_SAFE_NO_PAD
                    .decode(text)
                    .map_err(|_| "a key that is not base64url")
            };
            Ok(AttestationKey {
                modulus: decode(&key.n)?,
                exponent: decode(&key.e)?,
            })
        }
        (Some(_), None) => Err("a key HCLAkPub that is not RSA"),
        (None, _) => Err("no key HCLAkPub"),
        (Some(_), Some(_)) => Err("two keys HCLAkPub"),
    }
}
