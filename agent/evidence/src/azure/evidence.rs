//! `az-snp-vtpm` evidence in version 2 of CoCo's JSON, with the log.

use base64::{
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize};

use super::quote::Quote;
use crate::{field::Sha256Digest, log::MeasurementLog, obtained::Obtained};

/// How binary members are written. Versions pad their base64url or do not.
pub const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The JSON of versions 1 and 2.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionedForm {
    /// The version.
    #[serde(default)]
    pub version: u32,
    /// The TPM's quote.
    pub tpm_quote: HexQuote,
    /// The paravisor's blob, in base64url.
    pub hcl_report: String,
    /// The certificates, in base64url.
    pub vcek: String,
    /// The measurement log, in base64url. Not CoCo's, whose verifiers pass it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurement_log: Option<String>,
}

/// A quote in hexadecimal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HexQuote {
    /// Its signature.
    pub signature: String,
    /// The signed bytes.
    pub message: String,
    /// All PCRs of the SHA-256 bank.
    pub pcrs: Vec<Sha256Digest>,
}

/// Writes version 2 of what the paravisor gave, with the log.
pub fn compose(quote: &Quote, obtained: &Obtained, log: &MeasurementLog) -> String {
    let form = VersionedForm {
        version: 2,
        tpm_quote: HexQuote {
            signature: hex::encode(&quote.signature),
            message: hex::encode(&quote.message),
            pcrs: quote.pcrs.to_vec(),
        },
        hcl_report: BASE64URL.encode(&obtained.report),
        vcek: BASE64URL.encode(&obtained.certificates),
        measurement_log: Some(BASE64URL.encode(log.as_bytes())),
    };
    serde_json::to_string(&form).expect("text and lists are json")
}
