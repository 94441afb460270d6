//! What a failed request means.

use thiserror::Error;
use ttrpc::Code;

/// Why a request to the guest failed.
#[derive(Debug, Error)]
#[error("{method} failed in the guest: {}", text(source))]
pub struct AgentError {
    /// The agent's method.
    pub method: &'static str,
    /// What came back, or did not.
    pub source: ttrpc::Error,
}

fn text(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) if status.code() == Code::DEADLINE_EXCEEDED => {
            "no answer in time".to_owned()
        }
        ttrpc::Error::RpcStatus(status) => status.message.clone(),
        ttrpc::Error::RemoteClosed => "the connection to the guest is closed".to_owned(),
        other => other.to_string(),
    }
}

impl AgentError {
    /// The agent's own code, or what a lost connection comes to.
    pub fn code(&self) -> Code {
        match &self.source {
            ttrpc::Error::RpcStatus(status) => status.code(),
            _ => Code::UNAVAILABLE,
        }
    }

    /// Whether the guest says that the process or container does not exist (any more).
    pub fn is_gone(&self) -> bool {
        match &self.source {
            ttrpc::Error::RpcStatus(status) => {
                status.code() == Code::NOT_FOUND
                    || (status.code() == Code::INVALID_ARGUMENT
                        && status.message.contains("nvalid container id"))
            }
            _ => false,
        }
    }
}
