//! A source of reports: the trait that every TEE has, and why one gives none.

use std::{fmt, io, path::PathBuf, time::Duration};

use super::tpm::TpmError;
use crate::{evidence, field::ReportData, log::MeasurementLog, obtained::Obtained};

/// The kinds of TEE, by the names of the KBS protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TeeKind {
    /// AMD SEV-SNP; its report is 1184 bytes.
    Snp,
    /// AMD SEV-SNP under Azure's paravisor.
    AzSnpVtpm,
    /// Intel TDX; its report is a quote. Obtained, not judged.
    Tdx,
    /// None; test builds only.
    #[cfg(feature = "sample")]
    Sample,
}

/// Why no report was obtained.
#[derive(Debug, thiserror::Error)]
pub enum TeeError {
    /// A file of the interface could not be used.
    #[error("cannot {step} {path}")]
    File {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The interface belongs to another TEE, or none that we know.
    #[error("the report provider {0:?} is unknown")]
    Provider(String),
    /// Somebody else wrote to the entry in between.
    #[error("the report entry was changed while it was read")]
    Raced,
    /// The host or firmware refused.
    #[error("the secure processor refused: firmware error {firmware:#x}, host error {host:#x}")]
    Refused {
        /// Error of the firmware.
        firmware: u32,
        /// Error of the host.
        host: u32,
    },
    /// The host stayed busy past the deadline.
    #[error("the host stayed busy for {0} tries")]
    Busy(u32),
    /// The answer is not one.
    #[error("the secure processor's answer is malformed")]
    Answer,
    /// The host did not answer in time.
    #[error("the secure processor did not answer within {0:?}")]
    Silent(Duration),
    /// An entry came between the copy of the log and the quote, or one was extended and
    /// not logged.
    #[error("the tpm has another measurement log than was given")]
    OtherLog,
    /// The paravisor's TPM failed.
    #[error("the paravisor's tpm cannot be used")]
    Tpm(#[from] TpmError),
}

/// A source of reports.
pub trait Tee: Send + Sync {
    /// Which TEE it is.
    fn kind(&self) -> TeeKind;

    /// Has the hardware sign 64 bytes. Blocks, for seconds at most.
    ///
    /// # Errors
    ///
    /// [`TeeError`] names the step that failed.
    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError>;

    /// Evidence that answers a nonce and binds the log so far, as text. Blocks, for
    /// seconds at most.
    ///
    /// # Errors
    ///
    /// [`TeeError`] names the step that failed; [`TeeError::OtherLog`] may pass when the
    /// log is copied again.
    fn evidence(&self, nonce: &[u8], log: &MeasurementLog) -> Result<String, TeeError> {
        let obtained = self.obtain(&log.bound_report_data(nonce))?;
        Ok(evidence::compose(&obtained, nonce, log))
    }
}

impl TeeKind {
    /// Name in the KBS protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::AzSnpVtpm => "az-snp-vtpm",
            Self::Tdx => "tdx",
            #[cfg(feature = "sample")]
            Self::Sample => "sample",
        }
    }
}

impl fmt::Display for TeeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
