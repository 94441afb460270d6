//! `az-snp-vtpm` evidence in the three JSON versions that CoCo's attesters sent.

use agent_evidence::{
    Sha256Digest,
    azure::{BASE64URL, HclError, HclReport, PCR_COUNT, Quote, VersionedForm},
    log::{MAX_LOG_LEN, MeasurementLog},
};
use base64::Engine as _;
use serde::Deserialize;

use crate::{
    endorsements::{ContainerError, Endorsements},
    replay::{ReplayError, replay},
    snp::UnverifiedReport,
};

/// Longest text read, in bytes: a full log in base64, and the rest.
const MAX_LEN: usize = MAX_LOG_LEN / 3 * 4 + 1024 * 1024;

/// Text is not evidence of a VM with a paravisor.
#[derive(Debug, thiserror::Error)]
pub enum AzureEvidenceError {
    /// More text than any evidence has.
    #[error("evidence of {0} bytes is longer than {MAX_LEN}")]
    TooLong(usize),
    /// Not the JSON of a known version.
    #[error("the evidence is not az-snp-vtpm evidence in the form of its version")]
    Json(#[from] serde_json::Error),
    /// A version that is not known.
    #[error("evidence of version {0} is not known: it has 1, 2 or no version")]
    Version(u32),
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

/// Whether the report must bind the nonce beside the quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserData {
    /// From version 2 on.
    Required,
    /// Before: the guest did not ask the paravisor to include anything.
    NotAsked,
}

/// The parts of the evidence. None is proven.
#[derive(Clone, Debug)]
pub struct AzureEvidence {
    /// What the version says of the runtime data's member `user-data`.
    pub user_data: UserData,
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

impl AzureEvidence {
    /// The report inside the paravisor's blob, to be authenticated.
    pub fn report(&self) -> UnverifiedReport {
        UnverifiedReport::of(*self.hcl.report())
    }

    /// Reads evidence without version, of version 1 or 2.
    ///
    /// # Errors
    ///
    /// [`AzureEvidenceError`] names what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, AzureEvidenceError> {
        if text.len() > MAX_LEN {
            return Err(AzureEvidenceError::TooLong(text.len()));
        }
        match agent_documents::parse_json::<Version>(text)?.version {
            None => Self::parse_oldest(agent_documents::parse_json(text)?),
            Some(1) => {
                Self::parse_versioned(UserData::NotAsked, &agent_documents::parse_json(text)?)
            }
            Some(2) => {
                Self::parse_versioned(UserData::Required, &agent_documents::parse_json(text)?)
            }
            Some(version) => Err(AzureEvidenceError::Version(version)),
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
            user_data: UserData::NotAsked,
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

    fn parse_versioned(
        user_data: UserData,
        evidence: &VersionedForm,
    ) -> Result<Self, AzureEvidenceError> {
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
            user_data,
            hcl: HclReport::parse(&from_base64("hcl_report", &evidence.hcl_report)?)?,
            quote: Quote {
                signature: from_hex("signature", &quote.signature)?,
                message: from_hex("message", &quote.message)?,
                pcrs: all_pcrs(quote.pcrs.clone())?,
            },
            endorsements: Endorsements::parse(&from_base64("vcek", &evidence.vcek)?)?,
            log: log.map(|log| replay(&log)).transpose()?,
        })
    }
}

fn all_pcrs(pcrs: Vec<Sha256Digest>) -> Result<[Sha256Digest; PCR_COUNT], AzureEvidenceError> {
    pcrs.try_into().map_err(|_| AzureEvidenceError::Pcrs)
}
