//! Asking the hardware for a report.
//!
//! One trait for every TEE; who uses it need not know which one the guest is in.
//! What comes back passed through the host, and is judged by whoever gets the evidence.

#[cfg(feature = "hardware")]
mod configfs;
#[cfg(feature = "hardware")]
mod detect;
mod paravisor;
#[cfg(feature = "hardware")]
mod sev_guest;
#[cfg(any(test, feature = "simulated-tee"))]
#[cfg_attr(
    not(feature = "simulated-tee"),
    allow(dead_code, unreachable_pub, reason = "only its tests are built")
)]
mod simulated;
mod source;
pub mod tpm;

#[cfg(feature = "simulated-tee")]
pub use self::simulated::SimulatedTee;
#[cfg(feature = "hardware")]
pub use self::{
    configfs::ConfigfsTsm,
    detect::{detect, detect_with, is_confidential},
    sev_guest::SevGuest,
};
pub use self::{
    paravisor::Paravisor,
    source::{Tee, TeeError, TeeKind},
};
