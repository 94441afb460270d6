//! The pod's network, which is the guest's: set up as the host asks, through the
//! kernel's route netlink.

mod link;
mod list;
mod route;

use std::{fmt, sync::Arc};

use agent_evidence::Sha256Digest;
use agent_measured::{Measured, NoteError};
use rtnetlink::{Handle, new_connection};
use thiserror::Error;

/// Why the network cannot be set up or read.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The kernel cannot be talked to.
    #[error("cannot talk to the kernel about the network")]
    Connect(#[source] std::io::Error),
    /// It cannot be measured.
    #[error("the change of the network cannot be measured")]
    Log(#[from] NoteError),
    /// There is no such card.
    #[error("no network card with address {0} appeared in the guest")]
    NoCard(String),
    /// There is no such interface.
    #[error("the guest has no interface {0:?}")]
    NoInterface(String),
    /// The kernel refused.
    #[error("cannot {step} of {object}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// With what.
        object: String,
        /// Why not.
        #[source]
        source: Box<rtnetlink::Error>,
    },
}

/// The guest's network.
#[derive(Debug, Clone)]
pub struct Network {
    kernel: Handle,
    log: Arc<Measured>,
}

impl Network {
    /// Connects to the kernel; the connection lives in a task of the runtime.
    ///
    /// # Errors
    ///
    /// When the kernel has no route netlink.
    pub fn connect(log: Arc<Measured>) -> Result<Self, NetworkError> {
        let (connection, kernel, _) = new_connection().map_err(NetworkError::Connect)?;
        tokio::spawn(connection);
        Ok(Self { kernel, log })
    }

    /// Measures what the host wants of the network, before it is done.
    fn measure(&self, request: &impl fmt::Debug) -> Result<(), NetworkError> {
        let text = format!("{request:?}");
        let change = Sha256Digest::of(&[text.as_bytes()]);
        Ok(self.log.note_change("network", change)?)
    }
}

fn refused(step: &'static str, object: &str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let object = object.to_owned();
    move |source| NetworkError::Kernel {
        step,
        object,
        source: Box::new(source),
    }
}
