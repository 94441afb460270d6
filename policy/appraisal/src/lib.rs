//! Judges evidence of a guest: which chip signed it, what booted, what was bound, what ran.
//!
//! For the owner's side: the command `kata-cc verify`, and whoever releases keys. All input
//! is hostile: reports pass through the host, certificates come from the host's cache or a
//! network, evidence from whoever sends it. The library asks no clock and no network:
//! time, roots and certificates are arguments.
//!
//! The way of a report is a chain of types, and only the last can be acted on:
//!
//! 1. [`snp::UnverifiedReport`] has no fields to read.
//! 2. [`snp::AuthenticReport`] was signed by a chip whose certificate chains to a
//!    pinned root ([`snp::Roots`]) and which it agrees with in every respect.
//! 3. [`Verdict`] lists each [`Check`] with what the owner expected
//!    ([`snp::ReferenceValues`]) and what was received.
//!
//! [`Evidence`] is evidence of any form; [`Evidence::appraise`] answers one [`Question`] about
//! it. [`azure`] judges the links that a paravisor puts below the report, [`Workload`] what
//! the guest's log says that ran, and [`uvm`] reads what the maker of an image says about its
//! launch measurement.

pub mod azure;
#[cfg(feature = "sample")]
pub mod sample;
pub mod snp;
pub mod uvm;

mod endorsements;
mod evidence;
mod replay;
mod same_bytes;
mod time;
mod verdict;
mod workload;
mod x509;

pub use self::{
    endorsements::{ContainerError, Endorsements, MAX_CERTIFICATES},
    evidence::{
        Evidence, EvidenceError, Freshness, LoggedEvidence, LoggedExpected, MAX_EVIDENCE_LEN,
        Question, QuestionError,
    },
    replay::{ReplayError, replay},
    time::{Timestamp, TimestampError},
    verdict::{Check, Finding, Outcome, Verdict},
    workload::{AllowedContainer, Workload},
    x509::{
        Certificate, CertificateError, Crl, CrlError, DerError, MAX_CERTIFICATE_LEN, MAX_CRL_LEN,
    },
};
