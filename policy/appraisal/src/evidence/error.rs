//! Why text is not evidence.

use agent_evidence::{evidence::MAX_NONCE_LEN, snp::ReportLengthError};

use crate::{
    azure::AzureEvidenceError, endorsements::ContainerError, replay::ReplayError,
    snp::JsonEvidenceError,
};

/// Longest text read, in bytes: a full log in base64 and as much again.
pub const MAX_EVIDENCE_LEN: usize = 12 * 1024 * 1024;

/// Text is not evidence in a form we know.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// More text than any evidence has.
    #[error("the evidence has more than {MAX_EVIDENCE_LEN} bytes")]
    TooLong,
    /// Not JSON, or of no known form.
    #[error("the evidence is not json of a known form")]
    Json(#[from] serde_json::Error),
    /// Of another TEE.
    #[error("evidence of the tee {0:?} is not supported")]
    Tee(String),
    /// A member is not base64.
    #[error("member {0} of the evidence is not base64")]
    Base64(&'static str),
    /// The nonce is too long.
    #[error("a nonce of {0} bytes is longer than {MAX_NONCE_LEN}")]
    Nonce(usize),
    /// The report has another length.
    #[error("the evidence's report cannot be read")]
    Report(#[from] ReportLengthError),
    /// The certificates cannot be read.
    #[error("the evidence's certificates cannot be read")]
    Certificates(#[from] ContainerError),
    /// The log cannot be replayed.
    #[error("the evidence's measurement log cannot be replayed")]
    Log(#[from] ReplayError),
    /// CoCo's SNP form, but malformed.
    #[error("the evidence's form is coco's for snp, its content is not")]
    Snp(#[from] JsonEvidenceError),
    /// CoCo's form for Azure, but malformed.
    #[error("the evidence's form is that of az-snp-vtpm, its content is not")]
    Azure(#[from] AzureEvidenceError),
}
