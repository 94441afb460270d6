//! The verdict: the report's, and the log's.

use agent_evidence::log::{Event, MeasurementLog};
use anyhow::{Error, Result, anyhow};
use policy_appraisal::{Question, QuestionError, Verdict};

use super::{guard::Guard, inputs::Inputs};

/// Evidence, judged.
#[derive(Debug)]
pub(crate) struct Judged {
    /// On the report and what it binds.
    pub(super) verdict: Verdict,
    /// What the guest says that it did; true if the verdict accepts it.
    pub(super) log: Option<MeasurementLog>,
    /// Of the kernel that booted; unknown if the verdict does not accept the evidence.
    pub(super) guard: Guard,
}

impl Judged {
    pub(crate) fn is_accepted(&self) -> bool {
        self.verdict.is_accepted()
    }

    /// What the guest says that it did, event by event.
    pub(super) fn events(&self) -> &[Event] {
        self.log.as_ref().map_or(&[], MeasurementLog::events)
    }
}

/// Judges evidence of any form.
///
/// # Errors
///
/// When the form needs another kind of nonce than was given.
pub(crate) fn judge(inputs: &Inputs) -> Result<Judged> {
    let question = Question {
        roots: &inputs.roots,
        references: &inputs.references,
        freshness: &inputs.freshness,
        host_data: inputs.host_data,
        initdata: inputs.initdata_digest,
        pcrs: &inputs.pcrs,
        workload: inputs.workload.as_ref(),
        at: inputs.at,
    };
    let verdict = inputs.evidence.appraise(&question).map_err(by_flags)?;
    let log = inputs.evidence.log().cloned();
    let guard = if verdict.is_accepted() {
        let booted = inputs.evidence.report().claimed_measurement();
        inputs.guards.of(booted)
    } else {
        Guard::Unknown
    };
    Ok(Judged {
        verdict,
        log,
        guard,
    })
}

/// The same in terms of this command's flags.
fn by_flags(error: QuestionError) -> Error {
    match error {
        QuestionError::NoLog => {
            anyhow!("this form of evidence has no log to hold --workload against")
        }
        QuestionError::BindsReportData => {
            anyhow!("CoCo's snp form binds report data: give --report-data or --runtime-data")
        }
        QuestionError::AnswersNonce => {
            anyhow!("this form of evidence answers a nonce: give --nonce")
        }
    }
}
