//! Why initdata is not found, not known to be the right one, or not taken.

use std::io;

use agent_evidence::{HostData, snp::OwnReportError, tee::tpm::TpmError};
use agent_measured::NoteError;
use agent_protocol::initdata::{PolicyError, disk::DiskError, packed::PackedError};
use thiserror::Error;

/// Why there is no saying what the owner's initdata is. The host is at fault.
#[derive(Debug, Error)]
pub(crate) enum ScanError {
    /// The kernel's list cannot be read.
    #[error("the guest's disks cannot be listed")]
    List(#[source] io::Error),
    /// A disk cannot be read.
    #[error("disk {disk} cannot be read, and it might hold initdata")]
    Read {
        /// Its name.
        disk: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// More than one says that it is the one.
    #[error("{0} disks hold initdata, where there can be one")]
    Several(usize),
    /// The frame is broken.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The content is broken.
    #[error(transparent)]
    Packed(#[from] PackedError),
}

/// Why the guest does not know what its launch binds.
#[derive(Debug, Error)]
pub(crate) enum BoundError {
    /// A TEE, but nothing that makes reports.
    #[error("the guest runs in a TEE whose reports cannot be had")]
    NoReports,
    /// The report.
    #[error(transparent)]
    Report(#[from] OwnReportError),
}

/// Why initdata that was found is not taken.
#[derive(Debug, Error)]
pub(crate) enum TakeError {
    #[error(
        "initdata has the digest {found}, which fits to {fitted}, but the launch binds {bound}"
    )]
    Digest {
        found: String,
        fitted: HostData,
        bound: HostData,
    },
    #[error(
        "initdata says {found} for its digest, but a paravisor's tpm takes sha256 only: \
         make the initdata with that algorithm"
    )]
    Algorithm { found: &'static str },
    #[error("initdata cannot be measured into the paravisor's tpm")]
    Register(#[from] TpmError),
    #[error("initdata cannot be measured")]
    Log(#[from] NoteError),
    #[error("initdata cannot be laid out in the guest")]
    Files(#[source] io::Error),
    #[error("initdata holds two policies")]
    TwoPolicies,
    #[error("the policy in initdata is not of the kind that its entry is named for")]
    OtherPolicy,
    #[error("the policy in initdata cannot be used")]
    Policy(#[from] PolicyError),
}
