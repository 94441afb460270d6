//! What a guest and a key broker say to each other: version 0.4.0 of the protocol of the
//! key broker service of Confidential Containers.
//!
//! The guest asks with a [`Request`], the broker answers with a [`Challenge`], the guest
//! proves itself with an [`Attestation`] that is bound to the challenge and to the guest's
//! own [`TeePublicKey`] by [`report_data`]; a resource, named by [`ResourceName`], then
//! comes as JWE that only this key opens ([`TeePublicKey::seal`], [`TeeKey::open`]).
//!
//! Each side distrusts the other's bytes: messages are parsed with a limit of depth, and
//! what is left to the sender's choice is bounded. Nothing here does I/O.

mod binding;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod message;
mod resource;
mod response;
mod tee_key;

pub use binding::{ReportData, report_data};
pub use message::{
    Attestation, Challenge, ChallengeError, Details, ERROR_PREFIX, InitData, LOG_EVIDENCE, Request,
    RuntimeData, TeeEvidence, Token, VERSION, log_evidence,
};
pub use resource::{ResourceName, ResourceNameError};
pub use response::{OpenError, Response, SealError};
pub use tee_key::{TeeKey, TeePublicKey, TeePublicKeyError};
