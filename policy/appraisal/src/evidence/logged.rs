//! Evidence in our own form: the report as received, its endorsements, the log.

use agent_evidence::{
    HostData, ReportData,
    evidence::{LoggedForm, MAX_NONCE_LEN},
    log::MeasurementLog,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::error::{EvidenceError, MAX_EVIDENCE_LEN};
use crate::{
    endorsements::Endorsements,
    replay::replay,
    same_bytes::same_bytes,
    snp::{Expected, ReferenceValues, Roots, UnverifiedReport},
    time::Timestamp,
    verdict::{Check, Verdict},
    workload::Workload,
};

/// A report, its endorsements, and the log that it binds together with a nonce.
#[derive(Clone, Debug)]
pub struct LoggedEvidence {
    /// The report as received.
    pub report: UnverifiedReport,
    /// What came with it.
    pub endorsements: Endorsements,
    /// The nonce that it says to answer.
    pub nonce: Vec<u8>,
    /// The replayed log.
    pub log: MeasurementLog,
}

/// What logged evidence must say, beside the reference values.
#[derive(Clone, Copy, Debug)]
pub struct LoggedExpected<'a> {
    /// The nonce that was given for it.
    pub nonce: &'a [u8],
    /// Binds initdata or policy.
    pub host_data: HostData,
}

impl LoggedEvidence {
    /// Reads our own form.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] names what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, EvidenceError> {
        if text.len() > MAX_EVIDENCE_LEN {
            return Err(EvidenceError::TooLong);
        }
        let form: LoggedForm = agent_documents::parse_json(text)?;
        if form.tee != "snp" {
            return Err(EvidenceError::Tee(form.tee));
        }
        let decode = |name, text: &str| {
            STANDARD
                .decode(text)
                .map_err(|_| EvidenceError::Base64(name))
        };
        let nonce = decode("nonce", &form.nonce)?;
        if nonce.len() > MAX_NONCE_LEN {
            return Err(EvidenceError::Nonce(nonce.len()));
        }
        let mut endorsements = Endorsements::default();
        for certificates in &form.certificates {
            endorsements.add(&decode("certificates", certificates)?)?;
        }
        for list in &form.revocation_lists {
            endorsements.add_crl(&decode("revocation_lists", list)?)?;
        }
        Ok(Self {
            report: UnverifiedReport::parse(&decode("report", &form.report)?)?,
            endorsements,
            nonce,
            log: replay(&decode("log", &form.log)?)?,
        })
    }

    /// Writes our own form.
    pub fn to_json(&self) -> String {
        let certificates = self.endorsements.certificates();
        let lists = self.endorsements.crls();
        let form = LoggedForm {
            tee: "snp".to_owned(),
            report: STANDARD.encode(self.report.as_bytes()),
            certificates: certificates
                .iter()
                .map(|each| STANDARD.encode(each.as_der()))
                .collect(),
            revocation_lists: lists
                .iter()
                .map(|each| STANDARD.encode(each.as_der()))
                .collect(),
            nonce: STANDARD.encode(&self.nonce),
            log: STANDARD.encode(self.log.as_bytes()),
        };
        form.to_json()
    }

    /// Authenticates and appraises the report, and holds the log against it.
    ///
    /// An edited log refuses [`Check::MeasurementLog`], a replayed nonce
    /// [`Check::ReportData`].
    pub fn appraise(
        &self,
        roots: &Roots,
        references: &ReferenceValues,
        expected: &LoggedExpected<'_>,
        at: Timestamp,
    ) -> Verdict {
        self.appraise_with(roots, references, expected, None, at)
    }

    /// The same, and nothing may have run that the owner did not name.
    ///
    /// An extra container refuses [`Check::Workload`].
    pub fn appraise_with(
        &self,
        roots: &Roots,
        references: &ReferenceValues,
        expected: &LoggedExpected<'_>,
        workload: Option<&Workload>,
        at: Timestamp,
    ) -> Verdict {
        let authentic =
            match self
                .report
                .clone()
                .authenticate(&self.endorsements, roots, references, at)
            {
                Ok(authentic) => authentic,
                Err(refused) => return refused,
            };
        let ReportData(bound) = authentic.report_data();
        let with_log = self.log.bound_report_data(&self.nonce);
        let report_expected = Expected {
            report_data: self.log.bound_report_data(expected.nonce),
            host_data: expected.host_data,
        };
        let mut findings = authentic.appraised(references, &report_expected);
        findings.also_plan(&[Check::MeasurementLog]);
        findings.note(
            Check::MeasurementLog,
            same_bytes(&with_log.0, &bound),
            format_args!("a log that makes report data {}", ReportData(bound)),
            format_args!(
                "{} entries, register {}, which make {with_log}",
                self.log.events().len(),
                self.log.register()
            ),
        );
        if let Some(workload) = workload {
            findings.also_plan(&[Check::Workload]);
            workload.judge(&self.log, &mut findings);
        }
        findings.into_verdict()
    }
}
