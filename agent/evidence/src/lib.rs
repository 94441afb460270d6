//! Reports, evidence and their appraisal, one module per TEE.
//!
//! Used by the guest, which obtains evidence, and by the owner's side, which judges
//! it; both link the same code. All input is hostile: reports pass through the host,
//! certificates come from the host's cache or a network, evidence from whoever
//! sends it. The library asks no clock and no network: time, roots and certificates
//! are arguments.
//!
//! The way of a report is a chain of types, and only the last can be acted on:
//!
//! 1. [`snp::UnverifiedReport`] has no fields to read.
//! 2. [`snp::AuthenticReport`] was signed by a chip whose certificate chains to a
//!    pinned root ([`snp::Roots`]) and which it agrees with in every respect.
//! 3. [`Verdict`] lists each [`Check`] with what the owner expected
//!    ([`snp::ReferenceValues`]) and what was received.
//!
//! [`evidence`] is our own form, with the log; [`azure`] adds the links that a paravisor puts below the report, [`log`] the
//! measurement log of the guest, [`tee`] the way to ask the hardware. [`uvm`] reads what the
//! maker of an image says about its launch measurement.

pub mod azure;
pub mod evidence;
pub mod log;
#[cfg(feature = "sample")]
pub mod sample;
pub mod snp;
pub mod tee;
pub mod uvm;

mod bytes;
mod endorsements;
mod field;
mod time;
mod verdict;
mod x509;

pub use self::{
    bytes::Truncated,
    endorsements::{ContainerError, Endorsements, MAX_CERTIFICATES, MAX_CONTAINER_LEN},
    field::{
        BlockId, ChipId, FieldError, HostData, KeyDigest, LaunchMeasurement, ReportData, ReportId,
        Sha256Digest, Sha384Digest,
    },
    time::{Timestamp, TimestampError},
    verdict::{Check, Finding, Outcome, Verdict},
    x509::{
        Certificate, CertificateError, Crl, CrlError, DerError, MAX_CERTIFICATE_LEN, MAX_CRL_LEN,
    },
};
