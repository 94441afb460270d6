//! `az-snp-vtpm` evidence in the three JSON versions that CoCo's attesters sent.

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize};

use super::{
    hcl::{HclError, HclReport},
    quote::{PCR_COUNT, Quote},
};
use crate::{
    endorsements::{ContainerError, Endorsements},
    field::Sha256Digest,
    log::{MAX_LOG_LEN, MeasurementLog, ReplayError},
    tee::Obtained,
};

/// Longest text read, in bytes: a full log in base64, and the rest.
const MAX_LEN: usize = MAX_LOG_LEN / 3 * 4 + 1024 * 1024;

/// Versions pad their base64url or do not.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Text is not evidence of a VM with a paravisor.
#[derive(Debug, thiserror::Error)]
pub enum AzureEvidenceError {
    /// More text than any evidence has.
    #[error("evidence of {0} bytes is longer than {MAX_LEN}")]
    TooLong(usize),
    /// Not the JSON of a known version.
    #[error("the evidence is not az-snp-vtpm evidence of a known version")]
    Json(#[from] serde_json::Error),
    /// A binary member is not hexadecimal or base64url.
    #[error("member {0} of the evidence is not encoded as its version says")]
    Encoding(&'static str),
    /// Not 24 PCRs of 32 bytes.
    #[error("the evidence does not hold 24 sha-256 pcrs")]
    Pcrs,
    /// The paravisor's blob is malformed.
    #[error("the evidence's hcl report cannot be read")]
    Hcl(#[from] HclError),
    /// The certificate is malformed.
    #[error("the evidence's certificate cannot be read")]
    Certificates(#[from] ContainerError),
    /// The log is malformed.
    #[error("the evidence's measurement log cannot be replayed")]
    Log(#[from] ReplayError),
}

/// The parts of the evidence. None is proven.
#[derive(Clone, Debug)]
pub struct AzureEvidence {
    /// The paravisor's blob.
    pub hcl: HclReport,
    /// The TPM's quote.
    pub quote: Quote,
    /// The VCEK, and whatever is added.
    pub endorsements: Endorsements,
    /// The measurement log, which guests of this project add.
    pub log: Option<MeasurementLog>,
}

#[derive(Deserialize)]
struct Version {
    version: Option<u32>,
}

#[derive(Deserialize)]
struct Oldest {
    quote: OldestQuote,
    report: Vec<u8>,
    vcek: String,
}

#[derive(Deserialize)]
struct OldestQuote {
    signature: Vec<u8>,
    message: Vec<u8>,
    pcrs: Vec<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    #[serde(default)]
    version: u32,
    tpm_quote: HexQuote,
    hcl_report: String,
    vcek: String,
    /// Not CoCo's, whose verifiers pass it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    measurement_log: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct HexQuote {
    signature: String,
    message: String,
    pcrs: Vec<Sha256Digest>,
}

impl AzureEvidence {
    /// Reads evidence without version, of version 1 or 2.
    ///
    /// # Errors
    ///
    /// [`AzureEvidenceError`] names what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, AzureEvidenceError> {
        if text.len() > MAX_LEN {
            return Err(AzureEvidenceError::TooLong(text.len()));
        }
        match serde_json::from_slice::<Version>(text)?.version {
            None => Self::parse_oldest(serde_json::from_slice(text)?),
            Some(1 | 2) => Self::parse_versioned(&serde_json::from_slice(text)?),
            Some(_) => Err(AzureEvidenceError::Encoding("version")),
        }
    }

    fn parse_oldest(evidence: Oldest) -> Result<Self, AzureEvidenceError> {
        let pcrs: Result<Vec<Sha256Digest>, _> = evidence
            .quote
            .pcrs
            .into_iter()
            .map(|pcr| {
                pcr.try_into()
                    .map(Sha256Digest)
                    .map_err(|_| AzureEvidenceError::Pcrs)
            })
            .collect();
        Ok(Self {
            hcl: HclReport::parse(&evidence.report)?,
            quote: Quote {
                signature: evidence.quote.signature,
                message: evidence.quote.message,
                pcrs: all_pcrs(pcrs?)?,
            },
            endorsements: Endorsements::parse(evidence.vcek.as_bytes())?,
            log: None,
        })
    }

    fn parse_versioned(evidence: &Versioned) -> Result<Self, AzureEvidenceError> {
        let from_hex =
            |name, text: &str| hex::decode(text).map_err(|_| AzureEvidenceError::Encoding(name));
        let from_base64 = |name, text: &str| {
            BASE64URL
                .decode(text)
                .map_err(|_| AzureEvidenceError::Encoding(name))
        };
        let quote = &evidence.tpm_quote;
        let log = evidence.measurement_log.as_deref();
        let log = log
            .map(|log| from_base64("measurement_log", log))
            .transpose()?;
        Ok(Self {
            hcl: HclReport::parse(&from_base64("hcl_report", &evidence.hcl_report)?)?,
            quote: Quote {
                signature: from_hex("signature", &quote.signature)?,
                message: from_hex("message", &quote.message)?,
                pcrs: all_pcrs(quote.pcrs.clone())?,
            },
            endorsements: Endorsements::parse(&from_base64("vcek", &evidence.vcek)?)?,
            log: log.map(|log| MeasurementLog::replay(&log)).transpose()?,
        })
    }
}

/// Writes version 2 of what the paravisor gave, with the log; for the guest, which judges
/// nothing of it.
pub fn compose(quote: &Quote, obtained: &Obtained, log: &MeasurementLog) -> String {
    let wire = Versioned {
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
    serde_json::to_string(&wire).expect("text and lists are json")
}

fn all_pcrs(pcrs: Vec<Sha256Digest>) -> Result<[Sha256Digest; PCR_COUNT], AzureEvidenceError> {
    pcrs.try_into().map_err(|_| AzureEvidenceError::Pcrs)
}
