//! What a verifier asks of evidence, whatever form it has.

use agent_evidence::{HostData, ReportData, Sha256Digest};

use super::{
    any::Evidence,
    logged::{LoggedEvidence, LoggedExpected},
};
use crate::{
    azure::{AzureEvidence, AzureExpected, PcrReferences},
    snp::{Expected, JsonEvidence, ReferenceValues, Roots},
    time::Timestamp,
    verdict::Verdict,
    workload::Workload,
};

/// How the verifier knows that evidence answers its own question.
#[derive(Clone, Debug)]
pub enum Freshness {
    /// The nonce of our own form and of az-snp-vtpm.
    Nonce(Vec<u8>),
    /// All of the report data of CoCo's snp form.
    ReportData(ReportData),
}

/// Everything that a verifier knows and asks.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whom to believe.
    pub roots: &'a Roots,
    /// What the owner accepts.
    pub references: &'a ReferenceValues,
    /// What was asked for.
    pub freshness: &'a Freshness,
    /// What binds initdata or policy; az-snp-vtpm has none.
    pub host_data: HostData,
    /// Digest of the initdata in az-snp-vtpm, or none if the guest has none.
    pub initdata: Option<Sha256Digest>,
    /// PCR values that az-snp-vtpm may have.
    pub pcrs: &'a PcrReferences,
    /// What may have run; without it the log is not held against anything.
    pub workload: Option<&'a Workload>,
    /// When it is judged.
    pub at: Timestamp,
}

/// The form of the evidence cannot answer the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// A workload is expected of evidence without a log.
    #[error("this form of evidence has no log to hold a workload against")]
    NoLog,
    /// CoCo's snp form was asked by a nonce.
    #[error("CoCo's snp form binds report data, not a nonce")]
    BindsReportData,
    /// Another form was asked by report data.
    #[error("this form of evidence answers a nonce, not report data")]
    AnswersNonce,
}

impl Evidence {
    /// Authenticates and appraises evidence of any form.
    ///
    /// # Errors
    ///
    /// [`QuestionError`] if its form cannot answer the question.
    pub fn appraise(&self, question: &Question<'_>) -> Result<Verdict, QuestionError> {
        if question.workload.is_some() && self.log().is_none() {
            return Err(QuestionError::NoLog);
        }
        match (self, question.freshness) {
            (Self::Logged(evidence), Freshness::Nonce(nonce)) => {
                Ok(logged(evidence, nonce, question))
            }
            (Self::Snp(evidence), Freshness::ReportData(report_data)) => {
                Ok(snp(evidence, *report_data, question))
            }
            (Self::Azure(evidence), Freshness::Nonce(nonce)) => {
                Ok(azure(evidence, nonce, question))
            }
            (Self::Snp(_), Freshness::Nonce(_)) => Err(QuestionError::BindsReportData),
            (_, Freshness::ReportData(_)) => Err(QuestionError::AnswersNonce),
        }
    }
}

fn logged(evidence: &LoggedEvidence, nonce: &[u8], question: &Question<'_>) -> Verdict {
    let expected = LoggedExpected {
        nonce,
        host_data: question.host_data,
    };
    let (roots, references) = (question.roots, question.references);
    evidence.appraise_with(roots, references, &expected, question.workload, question.at)
}

fn snp(evidence: &JsonEvidence, report_data: ReportData, question: &Question<'_>) -> Verdict {
    let expected = Expected {
        report_data,
        host_data: question.host_data,
    };
    let (roots, references) = (question.roots, question.references);
    let report = evidence.report.clone();
    match report.authenticate(&evidence.endorsements, roots, references, question.at) {
        Ok(authentic) => authentic.appraise(references, &expected),
        Err(refused) => refused,
    }
}

fn azure(evidence: &AzureEvidence, nonce: &[u8], question: &Question<'_>) -> Verdict {
    let expected = AzureExpected {
        nonce,
        initdata: question.initdata,
        pcrs: question.pcrs,
    };
    let (roots, references) = (question.roots, question.references);
    evidence.appraise_with(roots, references, &expected, question.workload, question.at)
}
