//! What the guest's own hardware says of the guest, asked by the guest itself.
//!
//! A report from elsewhere is worth nothing before its signature is verified. This
//! one is different: the firmware's answer came to this guest over the channel that
//! the processor itself encrypts and authenticates (AMD 56860, guest messages), for
//! random bytes that were made for this question. Nothing but [`OwnReport::host_data`]
//! is read of it. It proves nothing to anybody else.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

use super::layout::{ReportLengthError, bound_fields};
use crate::{
    field::{HostData, ReportData},
    tee::{Tee, TeeError, TeeKind},
};

/// Why the guest does not learn what its hardware says.
#[derive(Debug, thiserror::Error)]
pub enum OwnReportError {
    /// Of a TEE whose report this build cannot read.
    #[error("the guest's own report is of the tee {0}, which this build cannot read")]
    Kind(TeeKind),
    /// No randomness.
    #[error("no random bytes for the guest's own report")]
    Random,
    /// The hardware gave none.
    #[error("the guest's own report cannot be had")]
    Obtain(#[from] TeeError),
    /// Not a report.
    #[error("the guest's own report cannot be read")]
    Length(#[from] ReportLengthError),
    /// It answers another question.
    #[error("the guest's own report does not carry the bytes that were asked for")]
    Stale,
}

/// A report that this guest asked its own hardware for just now.
#[derive(Clone, Copy, Debug)]
pub struct OwnReport {
    host_data: HostData,
}

impl OwnReport {
    /// Asks for it; blocks, for seconds at most.
    ///
    /// # Errors
    ///
    /// [`OwnReportError`] names the step that failed.
    pub fn ask(tee: &dyn Tee) -> Result<Self, OwnReportError> {
        if tee.kind() != TeeKind::Snp {
            return Err(OwnReportError::Kind(tee.kind()));
        }
        let mut question = ReportData::ZERO;
        SystemRandom::new()
            .fill(&mut question.0)
            .map_err(|_| OwnReportError::Random)?;
        let (report_data, host_data) = bound_fields(&tee.obtain(&question)?.report)?;
        if report_data != question {
            return Err(OwnReportError::Stale);
        }
        Ok(Self { host_data })
    }

    /// What the host had to give at launch.
    pub fn host_data(&self) -> HostData {
        self.host_data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{obtained::Obtained, snp::REPORT_LEN};

    struct Fake {
        kind: TeeKind,
        echo: bool,
        length: usize,
    }

    impl Tee for Fake {
        fn kind(&self) -> TeeKind {
            self.kind
        }

        fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
            let mut report = vec![0; REPORT_LEN];
            if self.echo {
                report[0x50..0x90].copy_from_slice(&report_data.0);
            }
            report[0xC0..0xE0].fill(0xD2);
            report.truncate(self.length);
            Ok(Obtained {
                report,
                certificates: Vec::new(),
            })
        }
    }

    const GOOD: Fake = Fake {
        kind: TeeKind::Snp,
        echo: true,
        length: REPORT_LEN,
    };

    #[test]
    fn host_data_is_read_of_a_fresh_report() {
        let own = OwnReport::ask(&GOOD).unwrap();
        assert_eq!(own.host_data(), HostData([0xD2; 32]));
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let stale = Fake {
            echo: false,
            ..GOOD
        };
        assert!(matches!(OwnReport::ask(&stale), Err(OwnReportError::Stale)));
    }

    #[test]
    fn other_reports_are_refused() {
        let short = Fake { length: 8, ..GOOD };
        assert!(matches!(
            OwnReport::ask(&short),
            Err(OwnReportError::Length(_))
        ));
        let tdx = Fake {
            kind: TeeKind::Tdx,
            ..GOOD
        };
        assert!(matches!(
            OwnReport::ask(&tdx),
            Err(OwnReportError::Kind(TeeKind::Tdx))
        ));
    }
}
