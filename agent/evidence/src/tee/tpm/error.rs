//! What can go wrong with a TPM, and at which command.

use std::io;

use super::{
    command::{Command, MAX_QUALIFYING_LEN},
    response::ResponseError,
};

/// Why a TPM did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The device could not be used.
    #[error("cannot {step} the tpm for {command}")]
    Device {
        /// What was tried.
        step: &'static str,
        /// For which command.
        command: Command,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is a TPM, but it cannot be opened.
    #[error("cannot open the tpm")]
    Open(#[source] io::Error),
    /// The TPM refused.
    #[error("the tpm refused {command} with code {code:#05x}")]
    Refused {
        /// The command.
        command: Command,
        /// `TPM_RC` (part 2, 6.6).
        code: u32,
    },
    /// What came back is no response to the command.
    #[error("the tpm's response to {command} is malformed")]
    Malformed {
        /// The command.
        command: Command,
        /// In which way.
        #[source]
        source: ResponseError,
    },
    /// The bank that is needed is not there.
    #[error("the tpm has pcr {0} in neither a sha-256 nor a sha-384 bank")]
    NoBank(u8),
    /// The nonce is longer than a quote takes.
    #[error("a nonce of {0} bytes is longer than a tpm's quote takes, {MAX_QUALIFYING_LEN}")]
    Nonce(usize),
    /// An index has another size than what is written to it.
    #[error("nv index {index:#010x} has {size} bytes, not 64")]
    IndexSize {
        /// The index.
        index: u32,
        /// As the TPM says.
        size: u16,
    },
    /// The PCRs are not those that were signed.
    #[error("the tpm's pcrs are not those that its quote signed")]
    Pcrs,
}
