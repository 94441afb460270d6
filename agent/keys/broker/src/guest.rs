//! What the guest proves itself with.

use std::sync::Arc;

use agent_evidence::{
    ReportData,
    log::MeasurementLog,
    snp::{ReportLengthError, coco_form},
    tee::{Tee, TeeError, TeeKind},
};
use agent_keys_protocol::{TeeEvidence, TeePublicKey, log_evidence, report_data};
use thiserror::Error;

/// A copy of the log so far, unless it cannot be brought up to date.
pub type LogSource = Box<dyn Fn() -> Option<MeasurementLog> + Send + Sync>;

/// The guest, as far as a broker wants to know it.
pub struct Guest {
    /// Its hardware, where there is one.
    pub hardware: Option<Arc<dyn Tee>>,
    /// What it did so far.
    pub log: LogSource,
    /// Its initdata's text.
    pub initdata: Option<String>,
}

/// Why there is no proof.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Nothing can prove anything.
    #[error("this guest runs in no TEE, so it can prove nothing")]
    NoTee,
    /// Of a TEE whose evidence this build cannot write.
    #[error("evidence of the TEE {0} is not supported")]
    Kind(TeeKind),
    /// The hardware gives none.
    #[error("the hardware gives no report")]
    Tee(#[from] TeeError),
    /// What it gives is none.
    #[error("the hardware's report cannot be read")]
    Report(#[from] ReportLengthError),
    /// The log cannot be brought up to date.
    #[error("the measurement log cannot be brought up to date")]
    Log,
}

impl Guest {
    /// The hardware that can prove this guest.
    pub(crate) fn tee(&self) -> Result<&dyn Tee, ProofError> {
        let tee = self.hardware.as_deref().ok_or(ProofError::NoTee)?;
        match tee.kind() {
            TeeKind::Snp => Ok(tee),
            other => Err(ProofError::Kind(other)),
        }
    }

    /// Evidence for a nonce and a key; with the log, if it is asked for.
    pub(crate) fn prove(
        &self,
        nonce: &str,
        key: &TeePublicKey,
        with_log: bool,
    ) -> Result<TeeEvidence, ProofError> {
        let tee = self.tee()?;
        // One copy, so that what is signed is what is sent.
        let additional_evidence = if with_log {
            log_evidence((self.log)().ok_or(ProofError::Log)?.as_bytes())
        } else {
            String::new()
        };
        let data = ReportData(report_data(nonce, key, &additional_evidence));
        let obtained = tee.obtain(&data)?;
        Ok(TeeEvidence {
            primary_evidence: coco_form(&obtained.report, &obtained.certificates)?,
            additional_evidence,
        })
    }
}
