//! How the task service says that something failed.
//!
//! containerd acts on the gRPC code and shows the text to a person, so each failure
//! has one of the codes that containerd expects and one sentence with its causes.

use std::error::Error;

use shim_agent_client::AgentError;
use ttrpc::Code;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// There is no such container or exec.
    #[error("{what} {id} not found")]
    NotFound {
        /// What is missing.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A container or exec of this id exists already.
    #[error("{what} {id} already exists")]
    AlreadyExists {
        /// What exists.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The state of the container or process does not allow the request.
    #[error("{what} {id} is {state}: {needed}")]
    Precondition {
        /// What it is.
        what: &'static str,
        /// Its id.
        id: String,
        /// Its state.
        state: &'static str,
        /// What the request needs.
        needed: &'static str,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The shim does not implement the request.
    #[error("{0} is not supported")]
    Unimplemented(&'static str),
    /// The guest refused the request, or does not answer.
    #[error("{}", .0)]
    Agent(#[from] AgentError),
    /// The guest did not make a container of this image.
    #[error("no container of image {image}: {}", .source)]
    Create {
        /// The image's reference.
        image: String,
        /// The guest's answer.
        source: AgentError,
    },
    /// Something on the host failed.
    #[error("{0}")]
    Failed(String),
}

impl TaskError {
    /// A fault of the caller.
    pub(crate) fn invalid(error: &(dyn Error + 'static)) -> Self {
        Self::Invalid(chain(error))
    }

    /// A fault of the host.
    pub(crate) fn failed(error: &(dyn Error + 'static)) -> Self {
        Self::Failed(chain(error))
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NOT_FOUND,
            Self::AlreadyExists { .. } => Code::ALREADY_EXISTS,
            Self::Precondition { .. } => Code::FAILED_PRECONDITION,
            Self::Invalid(_) => Code::INVALID_ARGUMENT,
            Self::Unimplemented(_) => Code::UNIMPLEMENTED,
            // The guest's ids are not containerd's: only the shim says NotFound.
            Self::Agent(error) | Self::Create { source: error, .. } => error.code(),
            Self::Failed(_) => Code::UNKNOWN,
        }
    }
}

impl From<TaskError> for ttrpc::Error {
    fn from(error: TaskError) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: TaskError) -> Code {
        match ttrpc::Error::from(error) {
            ttrpc::Error::RpcStatus(status) => status.code(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn each_failure_has_the_code_that_containerd_acts_on() {
        let missing = TaskError::NotFound {
            what: "container",
            id: "c".into(),
        };
        assert_eq!(code(missing), Code::NOT_FOUND);
        assert_eq!(
            code(TaskError::Unimplemented("Checkpoint")),
            Code::UNIMPLEMENTED
        );
        let denied = AgentError::new(
            "ExecProcess",
            &ttrpc::error::get_rpc_status(Code::PERMISSION_DENIED, "no"),
        );
        assert_eq!(code(denied.into()), Code::PERMISSION_DENIED);
        let late = AgentError::new(
            "CreateContainer",
            &ttrpc::error::get_rpc_status(Code::DEADLINE_EXCEEDED, "x"),
        );
        let late = TaskError::from(late);
        assert!(late.to_string().contains("no answer in time"));
        assert_eq!(code(late), Code::DEADLINE_EXCEEDED);
        let lost = AgentError::new("Check", &ttrpc::Error::RemoteClosed);
        assert_eq!(code(lost.into()), Code::UNAVAILABLE);
    }

    #[test]
    fn causes_are_said_once_and_on_one_line() {
        let inner = std::io::Error::other("line\nbreak");
        let outer = crate::record::RecordError::Read {
            path: "/x".into(),
            source: inner,
        };
        assert_eq!(chain(&outer), "cannot read /x: line break");
    }
}
