//! Evidence: a report that binds a nonce and the measurement log, with that log.

use std::{error::Error, fmt, sync::Arc};

use agent_evidence::tee::{Tee, TeeError, TeeKind};
use agent_measured::{Measured, NoteError};
use serde::Serialize;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::request::Answer;
use crate::{
    initdata::Hardware,
    judge::Judge,
    told::{self, Field, Told},
    version::VERSION,
};

/// What evidence is made of.
pub(super) struct Source {
    hardware: Hardware,
    log: Arc<Measured>,
    judge: Arc<Judge>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Info {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tee: Option<&'static str>,
    feature: &'static str,
}

impl Source {
    pub(super) fn new(hardware: Hardware, log: Arc<Measured>, judge: Arc<Judge>) -> Self {
        Self {
            hardware,
            log,
            judge,
        }
    }

    /// What this is.
    pub(super) fn info(&self) -> Answer {
        let info = Info {
            version: VERSION,
            tee: self.hardware.as_ref().map(|tee| tee.kind().name()),
            feature: "attestation",
        };
        match serde_json::to_string(&info) {
            Ok(text) => Answer::json(text),
            Err(error) => failed(Told::new("the information cannot be written"), &error),
        }
    }
}

/// Has the hardware sign; blocks a thread of the pool, not the caller.
pub(super) async fn answer(source: &Arc<Source>, nonce: Vec<u8>) -> Answer {
    if !source.judge.grants().evidence {
        return Answer::failed(&Told::new("evidence is not granted to containers"));
    }
    let Some(tee) = source.hardware.clone() else {
        return Answer::failed(&Told::new(
            "this guest runs in no TEE, so there is no evidence",
        ));
    };
    if !matches!(tee.kind(), TeeKind::Snp | TeeKind::AzSnpVtpm) {
        let kind = tee.kind();
        let told = Told::new("evidence of the TEE {what} is not supported");
        return Answer::failed(&told.with(Field::what(kind.name())));
    }
    let log = Arc::clone(&source.log);
    match spawn_blocking(move || make(&*tee, &log, &nonce)).await {
        Ok(Ok(text)) => Answer::json(text),
        Ok(Err(MakeError::Tee(error))) => failed(told::tee(&error), &error),
        Ok(Err(MakeError::Log(error))) => failed(told::note(&error), &error),
        Err(error) => failed(Told::new("the agent lost the work of this request"), &error),
    }
}

/// The one way from an error to an answer of this service.
fn failed(told: Told, error: &(dyn Error + 'static)) -> Answer {
    warn!(%told, error, "no evidence");
    Answer::failed(&told)
}

/// Why there is no evidence.
#[derive(Debug, Error)]
enum MakeError {
    #[error(transparent)]
    Tee(#[from] TeeError),
    #[error("the log cannot be brought up to date")]
    Log(#[from] NoteError),
}

fn make(tee: &dyn Tee, log: &Measured, nonce: &[u8]) -> Result<String, MakeError> {
    // A copy, so that what is signed is what is sent, whatever happens meanwhile.
    // Where a TPM has the log too, an entry may come before the TPM signs; rarely twice.
    let made = tee.evidence(nonce, &log.up_to_date()?);
    Ok(match made {
        Err(TeeError::OtherLog) => tee.evidence(nonce, &log.up_to_date()?)?,
        made => made?,
    })
}

/// A source whose pod has no policy.
#[cfg(test)]
pub(super) fn granted(hardware: Hardware, log: Arc<Measured>) -> Source {
    use crate::judge::Standing;

    let judge = Judge::new(&Standing::Open { bound: None }, Arc::clone(&log));
    Source::new(hardware, log, Arc::new(judge))
}

#[cfg(test)]
mod tests {
    use agent_evidence::{
        Obtained, ReportData, evidence::LoggedForm, log::DenialEntry, snp::REPORT_LEN,
    };
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::judge::Standing;

    struct Echo(TeeKind);

    impl Tee for Echo {
        fn kind(&self) -> TeeKind {
            self.0
        }

        fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
            let mut report = vec![0; REPORT_LEN];
            report[0x50..0x90].copy_from_slice(&report_data.0);
            Ok(Obtained {
                report,
                certificates: Vec::new(),
            })
        }
    }

    fn source(kind: TeeKind) -> Arc<Source> {
        let log = Arc::new(Measured::default());
        log.note(DenialEntry {
            rule: "X".to_owned(),
            code: None,
            count: 1,
        })
        .unwrap();
        Arc::new(granted(Some(Arc::new(Echo(kind))), log))
    }

    #[tokio::test]
    async fn evidence_binds_nonce_and_log() {
        let source = source(TeeKind::Snp);
        let bytes = answer(&source, b"nonce".to_vec()).await.to_bytes();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{text}");
        let evidence: LoggedForm = serde_json::from_str(body).unwrap();
        let log = source.log.so_far();
        assert_eq!(STANDARD.decode(evidence.nonce).unwrap(), b"nonce");
        assert_eq!(STANDARD.decode(evidence.log).unwrap(), log.as_bytes());
        let report = STANDARD.decode(evidence.report).unwrap();
        assert_eq!(report[0x50..0x90], log.bound_report_data(b"nonce").0);
    }

    #[tokio::test]
    async fn evidence_of_another_tee_is_refused() {
        let bytes = answer(&source(TeeKind::Tdx), Vec::new()).await.to_bytes();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
        assert!(text.ends_with("tdx is not supported"), "{text}");
    }

    #[tokio::test]
    async fn evidence_that_is_not_granted_is_refused() {
        let (log, standing) = (
            Arc::<Measured>::default(),
            Standing::Refused(Told::new("no")),
        );
        let judge = Arc::new(Judge::new(&standing, Arc::clone(&log)));
        let hardware: Hardware = Some(Arc::new(Echo(TeeKind::Snp)));
        let source = Arc::new(Source::new(hardware, log, judge));
        let text = String::from_utf8(answer(&source, Vec::new()).await.to_bytes()).unwrap();
        assert!(
            text.ends_with("evidence is not granted to containers"),
            "{text}"
        );
    }

    struct Broken;

    impl Tee for Broken {
        fn kind(&self) -> TeeKind {
            TeeKind::Snp
        }

        fn obtain(&self, _: &ReportData) -> Result<Obtained, TeeError> {
            Err(TeeError::File {
                step: "read",
                path: "/PLANTED".into(),
                source: std::io::Error::other("PLANTED"),
            })
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_without_paths_and_words_of_others() {
        let source = Arc::new(granted(Some(Arc::new(Broken)), Arc::default()));
        let text = String::from_utf8(answer(&source, Vec::new()).await.to_bytes()).unwrap();
        assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
        assert!(
            text.contains("cannot read the kernel's interface"),
            "{text}"
        );
        assert!(!text.contains("PLANTED"), "{text}");
    }
}
