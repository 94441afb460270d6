//! Appraisal of a paravisor's evidence: the report, then each link below it.

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::{
    HostData, ReportData, Sha256Digest,
    azure::{Attest, PCR_COUNT, workload_nonce},
    tee::tpm::{INITDATA_PCR, LOG_PCR},
};
use serde::{Deserialize, Serialize};

use super::{
    evidence::{AzureEvidence, UserData},
    runtime_data::{bound_data, bound_report_data},
};
use crate::{
    same_bytes::same_bytes,
    snp::{Expected, ReferenceValues, Roots},
    time::Timestamp,
    verdict::{Check, Findings, Verdict},
    workload::Workload,
};

const LINKS: &[Check] = &[
    Check::RuntimeData,
    Check::QuoteSignature,
    Check::QuoteNonce,
    Check::UserData,
    Check::QuotePcrs,
    Check::PcrValues,
    Check::Initdata,
];

/// PCRs by number, with the values accepted for each.
///
/// The launch measurement covers the paravisor only; the guest is in the PCRs, so
/// at least one must be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PcrReferences(
    #[serde(deserialize_with = "agent_documents::unique")] pub BTreeMap<u8, BTreeSet<Sha256Digest>>,
);

/// What this one piece of evidence must say, beside the reference values.
#[derive(Clone, Debug)]
pub struct AzureExpected<'a> {
    /// Qualifying data of the quote, exactly, or what they are derived from for a workload
    /// ([`workload_nonce`]).
    pub nonce: &'a [u8],
    /// Digest of the initdata, or none if the guest has none.
    pub initdata: Option<Sha256Digest>,
    /// Accepted PCR values.
    pub pcrs: &'a PcrReferences,
}

impl AzureEvidence {
    /// Authenticates and appraises the report, then the quote it vouches for, then the
    /// log, if there is one.
    pub fn appraise(
        &self,
        roots: &Roots,
        references: &ReferenceValues,
        expected: &AzureExpected<'_>,
        at: Timestamp,
    ) -> Verdict {
        self.appraise_with(roots, references, expected, None, at)
    }

    /// The same, and nothing may have run that the owner did not name.
    ///
    /// An extra container refuses [`Check::Workload`], and so does evidence without a log.
    pub fn appraise_with(
        &self,
        roots: &Roots,
        references: &ReferenceValues,
        expected: &AzureExpected<'_>,
        workload: Option<&Workload>,
        at: Timestamp,
    ) -> Verdict {
        let report = self.report();
        let authentic = match report.authenticate(&self.endorsements, roots, references, at) {
            Ok(authentic) => authentic,
            Err(refused) => return refused,
        };
        let bound = bound_report_data(&self.hcl);
        let binds = same_bytes(&bound.0, &authentic.report_data().0);
        // The host gives the paravisor's VM no host data: PCR 8 has that part.
        let report_expected = Expected {
            report_data: bound,
            host_data: HostData::ZERO,
        };
        let mut findings = authentic.appraised(references, &report_expected);
        findings.also_plan(LINKS);
        if self.log.is_some() {
            findings.also_plan(&[Check::MeasurementLog]);
        }
        if workload.is_some() {
            findings.also_plan(&[Check::Workload]);
        }
        if binds {
            self.judge_quote(expected, workload, &mut findings);
        }
        findings.into_verdict()
    }

    fn judge_quote(
        &self,
        expected: &AzureExpected<'_>,
        workload: Option<&Workload>,
        findings: &mut Findings,
    ) {
        let data = bound_data(&self.hcl);
        let wanted = "exactly one RSA key HCLAkPub";
        findings.note(
            Check::RuntimeData,
            data.is_ok(),
            wanted,
            data.as_ref().err().unwrap_or(&wanted),
        );
        let Ok(data) = data else { return };
        let tagged = workload_nonce(expected.nonce).0;
        let for_workload = Attest::parse(&self.quote.message)
            .is_ok_and(|attest| same_bytes(&attest.nonce, &tagged));
        let nonce = if for_workload && !expected.nonce.is_empty() {
            tagged.as_slice()
        } else {
            expected.nonce
        };
        let expected = &AzureExpected {
            nonce,
            ..expected.clone()
        };
        self.judge_user_data(data.user_data, expected.nonce, findings);
        let signed = data.key.signed(&self.quote);
        let received = if signed {
            "signed by HCLAkPub"
        } else {
            "not signed by HCLAkPub"
        };
        if !findings.note(
            Check::QuoteSignature,
            signed,
            "signed by HCLAkPub",
            received,
        ) {
            return;
        }
        match Attest::parse(&self.quote.message) {
            Ok(attest) => {
                if self.judge_attest(&attest, expected, findings) {
                    self.judge_log(workload, findings);
                }
            }
            Err(error) => {
                let wanted = "a quote of all 24 PCRs of the SHA-256 bank";
                findings.note(Check::QuotePcrs, false, wanted, error);
            }
        }
    }

    /// The report itself answers the nonce, where the version says so. Evidence of an
    /// earlier version has zeros or nothing; anything else answers another question.
    fn judge_user_data(&self, found: Option<ReportData>, nonce: &[u8], findings: &mut Findings) {
        let wanted = ReportData::padded(nonce).ok();
        let answers = matches!((wanted, found), (Some(wanted), Some(found))
            if same_bytes(&wanted.0, &found.0));
        let is_empty = found.is_none_or(|found| found == ReportData::ZERO);
        let passed = match self.user_data {
            UserData::Required => answers,
            UserData::NotAsked => answers || is_empty,
        };
        let wanted = match (wanted, self.user_data) {
            (None, _) => "a nonce of at most 64 bytes, padded with zeros".to_owned(),
            (Some(wanted), UserData::Required) => wanted.to_string(),
            (Some(wanted), UserData::NotAsked) => format!("{wanted}, or zeros, or none"),
        };
        let received = found.map_or_else(|| "no user data".to_owned(), |found| found.to_string());
        findings.note(Check::UserData, passed, wanted, received);
    }

    /// Whether the PCRs are the signed ones; only then are they worth comparing.
    fn judge_attest(
        &self,
        attest: &Attest,
        expected: &AzureExpected<'_>,
        findings: &mut Findings,
    ) -> bool {
        findings.note(
            Check::QuoteNonce,
            !expected.nonce.is_empty() && same_bytes(&attest.nonce, expected.nonce),
            hex::encode(expected.nonce),
            hex::encode(&attest.nonce),
        );
        let digest = self.quote.pcr_digest();
        let covered = same_bytes(&digest.0, &attest.pcr_digest);
        if !findings.note(
            Check::QuotePcrs,
            covered,
            hex::encode(&attest.pcr_digest),
            digest,
        ) {
            return false;
        }
        self.judge_pcrs(expected.pcrs, findings);
        let wanted = match expected.initdata {
            Some(digest) => Sha256Digest::of(&[&Sha256Digest::ZERO.0, &digest.0]),
            None => Sha256Digest::ZERO,
        };
        if let Some(found) = self.quote.pcrs.get(usize::from(INITDATA_PCR)) {
            findings.compare(Check::Initdata, &wanted, found);
        }
        true
    }

    fn judge_log(&self, workload: Option<&Workload>, findings: &mut Findings) {
        if let (Some(log), Some(found)) = (&self.log, self.quote.pcrs.get(usize::from(LOG_PCR))) {
            findings.note(
                Check::MeasurementLog,
                same_bytes(&log.register_256().0, &found.0),
                format_args!("a log that makes PCR {LOG_PCR} {found}"),
                format_args!(
                    "{} entries, which make {}",
                    log.events().len(),
                    log.register_256()
                ),
            );
        }
        if let (Some(log), Some(workload)) = (&self.log, workload) {
            workload.judge(log, findings);
        }
    }

    fn judge_pcrs(&self, references: &PcrReferences, findings: &mut Findings) {
        let PcrReferences(references) = references;
        if references.is_empty() {
            let wanted = "accepted values for at least one PCR among the reference values";
            findings.note(Check::PcrValues, false, wanted, "none");
            return;
        }
        let strange = references.iter().find_map(|(index, accepted)| {
            let found = self.quote.pcrs.get(usize::from(*index));
            match found {
                Some(value) if accepted.contains(value) => None,
                Some(value) => Some((*index, accepted.len(), value.to_string())),
                None => Some((
                    *index,
                    accepted.len(),
                    format!("no such PCR, there are {PCR_COUNT}"),
                )),
            }
        });
        match strange {
            None => findings.note(
                Check::PcrValues,
                true,
                "accepted PCR values",
                format_args!("{} PCRs with accepted values", references.len()),
            ),
            Some((index, accepted, value)) => findings.note(
                Check::PcrValues,
                false,
                format_args!("one of {accepted} accepted values in PCR {index}"),
                value,
            ),
        };
    }
}
