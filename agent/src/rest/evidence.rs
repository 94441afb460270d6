//! Evidence: a report that binds a nonce and the measurement log, with that log.

use std::{fmt, sync::Arc};

use agent_evidence::tee::{Tee, TeeError, TeeKind};
use serde::Serialize;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::request::Answer;
use crate::{initdata::Hardware, measured::Measured, rpc};

/// What evidence is made of.
pub(super) struct Source {
    hardware: Hardware,
    log: Arc<Measured>,
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
    pub(super) fn new(hardware: Hardware, log: Arc<Measured>) -> Self {
        Self { hardware, log }
    }

    /// What this is.
    pub(super) fn info(&self) -> Answer {
        let info = Info {
            version: rpc::VERSION,
            tee: self.hardware.as_ref().map(|tee| tee.kind().name()),
            feature: "attestation",
        };
        match serde_json::to_string(&info) {
            Ok(text) => Answer::json(text),
            Err(error) => Answer::failed(error.to_string()),
        }
    }
}

/// Has the hardware sign; blocks a thread of the pool, not the caller.
pub(super) async fn answer(source: &Arc<Source>, nonce: Vec<u8>) -> Answer {
    let Some(tee) = source.hardware.clone() else {
        return Answer::failed("this guest runs in no TEE, so there is no evidence".to_owned());
    };
    if !matches!(tee.kind(), TeeKind::Snp | TeeKind::AzSnpVtpm) {
        let kind = tee.kind();
        return Answer::failed(format!("evidence of the TEE {kind} is not supported"));
    }
    let log = Arc::clone(&source.log);
    match spawn_blocking(move || make(&*tee, &log, &nonce)).await {
        Ok(Ok(text)) => Answer::json(text),
        Ok(Err(error)) => {
            let error = rpc::sentence(&error);
            warn!(error, "no evidence");
            Answer::failed(error)
        }
        Err(_) => Answer::failed("the agent lost the work of this request".to_owned()),
    }
}

fn make(tee: &dyn Tee, log: &Measured, nonce: &[u8]) -> Result<String, TeeError> {
    // A copy, so that what is signed is what is sent, whatever happens meanwhile.
    // Where a TPM has the log too, an entry may come before the TPM signs; rarely twice.
    let made = tee.evidence(nonce, &log.so_far());
    match made {
        Err(TeeError::OtherLog) => tee.evidence(nonce, &log.so_far()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::{
        Obtained, ReportData, evidence::LoggedForm, log::DenialEntry, snp::REPORT_LEN,
    };
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

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
            count: 1,
        })
        .unwrap();
        Arc::new(Source::new(Some(Arc::new(Echo(kind))), log))
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
}
