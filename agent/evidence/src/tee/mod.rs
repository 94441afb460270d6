//! Asking the hardware for a report.
//!
//! One trait for every TEE; who uses it need not know which one the guest is in.
//! What comes back passed through the host, and is judged by the same code as what
//! a stranger sends.

#[cfg(feature = "hardware")]
mod configfs;
mod paravisor;
#[cfg(feature = "hardware")]
mod sev_guest;
#[cfg(any(test, feature = "simulated-tee"))]
#[cfg_attr(
    not(feature = "simulated-tee"),
    allow(dead_code, unreachable_pub, reason = "only its tests are built")
)]
mod simulated;
pub mod tpm;

#[cfg(feature = "hardware")]
use std::sync::Arc;
use std::{fmt, io, path::PathBuf, time::Duration};

pub use self::paravisor::Paravisor;
#[cfg(feature = "simulated-tee")]
pub use self::simulated::SimulatedTee;
#[cfg(feature = "hardware")]
pub use self::{configfs::ConfigfsTsm, sev_guest::SevGuest};
use crate::{evidence, field::ReportData, log::MeasurementLog};

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

/// What the hardware gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obtained {
    /// SNP report, TDX quote, or the paravisor's blob around a report.
    pub report: Vec<u8>,
    /// The host's certificate table; may be empty.
    pub certificates: Vec<u8>,
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
    Tpm(#[from] tpm::TpmError),
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

/// The TEE that this guest runs in, if it is one that we know and that is asked directly.
#[cfg(feature = "hardware")]
pub fn detect() -> Option<Box<dyn Tee>> {
    let configfs = ConfigfsTsm::open().map(|tee| Box::new(tee) as Box<dyn Tee>);
    let found = configfs.or_else(|| SevGuest::open().map(|tee| Box::new(tee) as Box<dyn Tee>));
    #[cfg(feature = "simulated-tee")]
    let found = found.or_else(|| SimulatedTee::open().map(|tee| Box::new(tee) as Box<dyn Tee>));
    found
}

/// The same, or the paravisor whose TPM this is. A report straight from the hardware
/// comes before what a TPM says, which any host can make up.
///
/// # Errors
///
/// When the TPM does not say whether it is a paravisor's.
#[cfg(feature = "hardware")]
pub fn detect_with(
    tpm: &Arc<tpm::Tpm<tpm::TpmDevice>>,
) -> Result<Option<Box<dyn Tee>>, tpm::TpmError> {
    match detect() {
        Some(tee) => Ok(Some(tee)),
        None => {
            let found = Paravisor::find(tpm)?;
            Ok(found.map(|tee| Box::new(tee) as Box<dyn Tee>))
        }
    }
}

/// Whether the kernel says that it runs in a TEE, whatever [`detect`] finds: in one
/// whose reports cannot be had, what needs a report must fail instead of doing without.
///
/// Linux makes the platform device `sev-guest` from what the processor itself says
/// (`SEV_STATUS`), and the processor flag `tdx_guest` from the TDX module's leaf.
#[cfg(feature = "hardware")]
pub fn is_confidential() -> bool {
    let flags = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("flags"))?;
        Some(line.split_whitespace().any(|flag| flag == "tdx_guest"))
    };
    std::path::Path::new("/sys/bus/platform/devices/sev-guest").exists() || flags() == Some(true)
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
