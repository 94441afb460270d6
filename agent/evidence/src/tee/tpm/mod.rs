//! A very small TPM 2.0 client: what a measured guest with a vTPM needs, no more.
//!
//! It speaks the commands of the TPM 2.0 library (part 3) itself, with the empty
//! password, one at a time, over anything that takes a command in one write and gives
//! its response in one read, as Linux's `/dev/tpmrm0` does. Nothing secret passes, so
//! there are no encrypted sessions.
//!
//! Whom to trust depends on whose the TPM is. A paravisor's is inside the guest's
//! boundary; any other is the host's, and what it says is hostile: responses are
//! bounded and strictly parsed, and only a verifier decides what a quote is worth.

mod client;
mod command;
#[cfg(feature = "hardware")]
mod device;
mod error;
mod exchange;
mod nv;
mod response;

#[cfg(feature = "hardware")]
pub use self::device::TpmDevice;
pub use self::{
    client::{INITDATA_PCR, LOG_PCR, Register, Tpm},
    command::{Command, MAX_QUALIFYING_LEN},
    error::TpmError,
    response::{MAX_RESPONSE_LEN, ResponseError, SignedAttest},
};
