//! Why the agent cannot go on.

use agent_evidence::tee::tpm::TpmError;
use agent_measured::NoteError;
use thiserror::Error;

use crate::{config::ConfigError, network::NetworkError};

/// The agent cannot go on.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// The command line is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A directory, thread or signal cannot be had.
    #[error("cannot {step}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The network cannot be reached.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Not even the boot can be measured.
    #[error("cannot measure the boot")]
    Measure(#[from] NoteError),
    /// There is a TPM, and it cannot be used.
    #[error("cannot measure into the guest's tpm")]
    Tpm(#[from] TpmError),
    /// The server cannot listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: Box<ttrpc::Error>,
    },
}

pub(crate) fn system(step: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |source| RunError::System { step, source }
}
