//! The verdict: the report's, and the log's.

use agent_evidence::{
    Verdict,
    azure::AzureExpected,
    evidence::{Evidence, LoggedExpected},
    log::{Event, MeasurementLog},
    snp::Expected,
};
use anyhow::{Result, bail};

use super::inputs::{Freshness, Inputs};

/// Evidence, judged.
#[derive(Debug)]
pub(crate) struct Judged {
    /// On the report and what it binds.
    pub(super) verdict: Verdict,
    /// What the guest says that it did; true if the verdict accepts it.
    pub(super) events: Vec<Event>,
}

impl Judged {
    pub(crate) fn is_accepted(&self) -> bool {
        self.verdict.is_accepted()
    }
}

/// Judges evidence of any form.
///
/// # Errors
///
/// When the form needs another kind of nonce than was given.
pub(crate) fn judge(inputs: &Inputs) -> Result<Judged> {
    let log = match &inputs.evidence {
        Evidence::Logged(evidence) => Some(&evidence.log),
        Evidence::Azure(evidence) => evidence.log.as_ref(),
        Evidence::Snp(_) => None,
    };
    let workload = inputs.workload.as_ref();
    if workload.is_some() && log.is_none() {
        bail!("this form of evidence has no log to hold --workload against");
    }
    let (roots, references, at) = (&inputs.roots, &inputs.references, inputs.at);
    let verdict = match (&inputs.evidence, &inputs.freshness) {
        (Evidence::Logged(evidence), Freshness::Nonce(nonce)) => {
            let expected = LoggedExpected {
                nonce,
                host_data: inputs.host_data,
            };
            evidence.appraise_with(roots, references, &expected, workload, at)
        }
        (Evidence::Snp(evidence), Freshness::ReportData(report_data)) => {
            let expected = Expected {
                report_data: *report_data,
                host_data: inputs.host_data,
            };
            let report = evidence.report.clone();
            match report.authenticate(&evidence.endorsements, roots, references, at) {
                Ok(authentic) => authentic.appraise(references, &expected),
                Err(refused) => refused,
            }
        }
        (Evidence::Azure(evidence), Freshness::Nonce(nonce)) => {
            let expected = AzureExpected {
                nonce,
                initdata: inputs.initdata_digest,
                pcrs: &inputs.pcrs,
            };
            evidence.appraise_with(roots, references, &expected, workload, at)
        }
        (Evidence::Snp(_), Freshness::Nonce(_)) => {
            bail!("CoCo's snp form binds report data: give --report-data or --runtime-data")
        }
        (_, Freshness::ReportData(_)) => {
            bail!("this form of evidence answers a nonce: give --nonce")
        }
    };
    let events = log.map_or(&[][..], MeasurementLog::events).to_vec();
    Ok(Judged { verdict, events })
}
