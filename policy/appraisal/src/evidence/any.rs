//! Evidence of any form.
//!
//! [`Evidence::parse`] tells the forms apart by their members; which form it is proves
//! nothing.

use agent_evidence::log::MeasurementLog;
use serde::Deserialize;

use super::{
    error::{EvidenceError, MAX_EVIDENCE_LEN},
    logged::LoggedEvidence,
};
use crate::{
    azure::AzureEvidence,
    endorsements::Endorsements,
    snp::{JsonEvidence, UnverifiedReport},
};

/// Evidence of any form.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// Our own.
    Logged(Box<LoggedEvidence>),
    /// CoCo's `snp`.
    Snp(Box<JsonEvidence>),
    /// CoCo's `az-snp-vtpm`.
    Azure(Box<AzureEvidence>),
}

#[derive(Deserialize)]
struct Members {
    tee: Option<String>,
    attestation_report: Option<serde::de::IgnoredAny>,
    hcl_report: Option<serde::de::IgnoredAny>,
    quote: Option<serde::de::IgnoredAny>,
}

impl Evidence {
    /// Reads evidence of any form.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] names what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, EvidenceError> {
        if text.len() > MAX_EVIDENCE_LEN {
            return Err(EvidenceError::TooLong);
        }
        let members: Members = agent_documents::parse_json(text)?;
        match members {
            Members {
                attestation_report: Some(_),
                ..
            } => Ok(Self::Snp(Box::new(JsonEvidence::parse(text)?))),
            Members {
                hcl_report: Some(_),
                ..
            }
            | Members { quote: Some(_), .. } => {
                Ok(Self::Azure(Box::new(AzureEvidence::parse(text)?)))
            }
            Members { tee: Some(tee), .. } if tee != "snp" => Err(EvidenceError::Tee(tee)),
            _ => Ok(Self::Logged(Box::new(LoggedEvidence::parse(text)?))),
        }
    }

    /// The report inside, to find its certificates by.
    pub fn report(&self) -> UnverifiedReport {
        match self {
            Self::Logged(evidence) => evidence.report.clone(),
            Self::Snp(evidence) => evidence.report.clone(),
            Self::Azure(evidence) => evidence.report(),
        }
    }

    /// What came with the report, to add to.
    pub fn endorsements_mut(&mut self) -> &mut Endorsements {
        match self {
            Self::Logged(evidence) => &mut evidence.endorsements,
            Self::Snp(evidence) => &mut evidence.endorsements,
            Self::Azure(evidence) => &mut evidence.endorsements,
        }
    }

    /// The log, if the form has one and this has. It is what the guest says that it did, and
    /// true if the verdict accepts it.
    pub fn log(&self) -> Option<&MeasurementLog> {
        match self {
            Self::Logged(evidence) => Some(&evidence.log),
            Self::Snp(_) => None,
            Self::Azure(evidence) => evidence.log.as_ref(),
        }
    }
}
