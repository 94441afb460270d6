//! How a guest proves itself: reports from its TEE, evidence, the measurement log.
//!
//! Nothing here judges evidence; the owner's side does, in `policy/appraisal`, with the
//! types of this crate. What the hardware gives comes through the host and is hostile:
//! it is read within bounds, and passed on as it came.
//!
//! [`tee`] asks the hardware, [`evidence`] writes our own form of what it gave, [`azure`]
//! that of a guest under a paravisor, [`log`] holds what the guest did, and [`snp`] reads
//! the guest's own report.

pub mod azure;
pub mod bytes;
pub mod evidence;
pub mod log;
pub mod snp;
pub mod tee;

mod field;
mod obtained;

pub use self::{
    field::{
        FieldError, HostData, LaunchMeasurement, ReportData, Sha256Digest, Sha384Digest,
        field_of_hex,
    },
    obtained::{MAX_CERTIFICATES_LEN, Obtained},
};
