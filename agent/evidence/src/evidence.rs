//! Evidence in our own form: the report as received, its endorsements, the log.
//!
//! Unlike the decoded form of others it keeps the signed bytes, and it carries the
//! measurement log that the report binds. [`Evidence::parse`] tells the forms apart
//! by their members; which form it is proves nothing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    azure::{AzureEvidence, AzureEvidenceError},
    bytes::{all_zero, same_bytes},
    endorsements::{ContainerError, Endorsements},
    field::{HostData, ReportData},
    log::{MeasurementLog, ReplayError, Workload},
    snp::{
        Expected, JsonEvidence, JsonEvidenceError, ReferenceValues, ReportLengthError, Roots,
        UnverifiedReport,
    },
    tee::Obtained,
    time::Timestamp,
    verdict::{Check, Verdict},
};

/// Longest text read, in bytes: a full log in base64 and as much again.
pub const MAX_EVIDENCE_LEN: usize = 12 * 1024 * 1024;

/// Longest nonce that evidence can answer, in bytes.
pub const MAX_NONCE_LEN: usize = 1024;

/// Text is not evidence in a form we know.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// More text than any evidence has.
    #[error("evidence of {0} bytes is longer than {MAX_EVIDENCE_LEN}")]
    TooLong(usize),
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

/// Writes our own form of what the hardware gave for
/// [`MeasurementLog::bound_report_data`]; for the guest, which judges nothing of it.
pub fn compose(obtained: &Obtained, nonce: &[u8], log: &MeasurementLog) -> String {
    let table = &obtained.certificates;
    let certificates = if all_zero(table) {
        Vec::new()
    } else {
        vec![STANDARD.encode(table)]
    };
    let wire = Wire {
        tee: "snp".to_owned(),
        report: STANDARD.encode(&obtained.report),
        certificates,
        revocation_lists: Vec::new(),
        nonce: STANDARD.encode(nonce),
        log: STANDARD.encode(log.as_bytes()),
    };
    wire.to_json()
}

#[derive(Deserialize)]
struct Members {
    tee: Option<String>,
    attestation_report: Option<serde::de::IgnoredAny>,
    hcl_report: Option<serde::de::IgnoredAny>,
    quote: Option<serde::de::IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    tee: String,
    report: String,
    certificates: Vec<String>,
    #[serde(default)]
    revocation_lists: Vec<String>,
    nonce: String,
    log: String,
}

impl Wire {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and lists are json")
    }
}

impl Evidence {
    /// Reads evidence of any form.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] names what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, EvidenceError> {
        if text.len() > MAX_EVIDENCE_LEN {
            return Err(EvidenceError::TooLong(text.len()));
        }
        let members: Members = serde_json::from_slice(text)?;
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
}

impl LoggedEvidence {
    /// Reads our own form.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] names what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, EvidenceError> {
        if text.len() > MAX_EVIDENCE_LEN {
            return Err(EvidenceError::TooLong(text.len()));
        }
        let wire: Wire = serde_json::from_slice(text)?;
        if wire.tee != "snp" {
            return Err(EvidenceError::Tee(wire.tee));
        }
        let decode = |name, text: &str| {
            STANDARD
                .decode(text)
                .map_err(|_| EvidenceError::Base64(name))
        };
        let nonce = decode("nonce", &wire.nonce)?;
        if nonce.len() > MAX_NONCE_LEN {
            return Err(EvidenceError::Nonce(nonce.len()));
        }
        let mut endorsements = Endorsements::default();
        for certificates in &wire.certificates {
            endorsements.add(&decode("certificates", certificates)?)?;
        }
        for list in &wire.revocation_lists {
            endorsements.add_crl(&decode("revocation_lists", list)?)?;
        }
        Ok(Self {
            report: UnverifiedReport::parse(&decode("report", &wire.report)?)?,
            endorsements,
            nonce,
            log: MeasurementLog::replay(&decode("log", &wire.log)?)?,
        })
    }

    /// Writes our own form.
    pub fn to_json(&self) -> String {
        let certificates = self.endorsements.certificates();
        let lists = self.endorsements.crls();
        let wire = Wire {
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
        wire.to_json()
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
