//! CoCo's `sample` evidence, which anyone can make.
//!
//! For tests of protocols around evidence. The feature is off by default, and there
//! is no way from here to an [`crate::snp::AuthenticReport`] or a verdict.

use agent_evidence::{
    Obtained, ReportData,
    tee::{Tee, TeeError, TeeKind},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// Evidence that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleEvidence {
    svn: String,
    report_data: String,
}

/// A machine without any TEE.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleTee;

impl SampleEvidence {
    /// Evidence over any report data.
    pub fn new(report_data: &[u8]) -> Self {
        Self {
            svn: "1".to_owned(),
            report_data: STANDARD.encode(report_data),
        }
    }

    /// The report data, if they are base64.
    pub fn report_data(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.report_data).ok()
    }
}

impl Tee for SampleTee {
    fn kind(&self) -> TeeKind {
        TeeKind::Sample
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let evidence = SampleEvidence::new(&report_data.0);
        Ok(Obtained {
            report: serde_json::to_vec(&evidence).expect("text is json"),
            certificates: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_is_that_of_coco() {
        let text = serde_json::to_string(&SampleEvidence::new(b"nonce")).unwrap();
        assert_eq!(text, r#"{"svn":"1","report_data":"bm9uY2U="}"#);
        let read: SampleEvidence = serde_json::from_str(&text).unwrap();
        assert_eq!(read.report_data().unwrap(), b"nonce");
    }
}
