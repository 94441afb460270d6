//! Errors on their way to the host: which code, which words.
//!
//! The words are the errors' own, one sentence along the chain of causes. Those
//! are written to be read by the owner and hold ids, image references and names of
//! steps, never environment, arguments or content.

use std::error::Error;

use agent_containers::{
    ContainerError, CopyError, CreateError, ExecError, LookupError, RemoveError, StreamError,
};
use agent_requests::RequestError;
use policy_engine::Denied;
use thiserror::Error;
use ttrpc::Code;

use crate::{judge::SetPolicyError, network::NetworkError, sandbox::SandboxError};

/// Most bytes of a message that leaves the guest.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A call that failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// The message is no valid request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The policy forbids it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A policy was not taken.
    #[error(transparent)]
    Policy(#[from] SetPolicyError),
    /// It names something that is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A container was not made or started.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A process was not started.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A container was not removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// A container was not changed or read.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A stream was not used.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The pod was not set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The network was not set up or read.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A file was not put in place.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A volume cannot be looked at.
    #[error("cannot look at the volume")]
    Volume(#[source] std::io::Error),
    /// The guest does not have this call.
    #[error("{0} is not implemented in this guest")]
    Unimplemented(&'static str),
    /// The work was lost inside the agent.
    #[error("the agent lost the work of this call")]
    Lost,
}

fn code(error: &CallError) -> Code {
    match error {
        CallError::Request(RequestError::Unsupported(_)) => Code::FAILED_PRECONDITION,
        CallError::Request(_) => Code::INVALID_ARGUMENT,
        CallError::Denied(_) => Code::PERMISSION_DENIED,
        CallError::Policy(SetPolicyError::TooLate | SetPolicyError::Digest { .. }) => {
            Code::PERMISSION_DENIED
        }
        CallError::Lookup(error)
        | CallError::Create(CreateError::Lookup(error))
        | CallError::Exec(ExecError::Lookup(error))
        | CallError::Remove(RemoveError::Lookup(error))
        | CallError::Container(ContainerError::Lookup(error)) => match error {
            LookupError::Container(_) => Code::INVALID_ARGUMENT,
            LookupError::Process(_) => Code::NOT_FOUND,
        },
        CallError::Create(CreateError::Exists(_))
        | CallError::Exec(ExecError::Exists { .. })
        | CallError::Sandbox(SandboxError::Exists) => Code::ALREADY_EXISTS,
        CallError::Create(CreateError::Started(_)) | CallError::Exec(ExecError::NotRunning(_)) => {
            Code::FAILED_PRECONDITION
        }
        CallError::Create(CreateError::TooMany) | CallError::Exec(ExecError::TooMany(_)) => {
            Code::RESOURCE_EXHAUSTED
        }
        CallError::Stream(StreamError::NoTerminal) => Code::UNAVAILABLE,
        CallError::Stream(StreamError::Closed) => Code::FAILED_PRECONDITION,
        CallError::Unimplemented(_) => Code::UNIMPLEMENTED,
        _ => Code::INTERNAL,
    }
}

/// The error as it goes to the host.
pub(super) fn to_wire(error: &CallError) -> ttrpc::Error {
    let code = code(error);
    let mut text = sentence(error);
    if code != Code::NOT_FOUND {
        text = without_gone_words(&text);
    }
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, text))
}

/// An error and its causes, each said once, as one bounded line.
#[must_use]
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    let mut text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// One of Kata's shims takes these words, in whatever error, for a process that has
/// ended (Kata agent protocol, section 11).
fn without_gone_words(text: &str) -> String {
    text.replace("not found", "missing")
        .replace("does not exist", "is missing")
        .replace("not exist", "be missing")
}

#[cfg(test)]
mod tests {
    use agent_protocol::id::{ContainerId, ExecId};

    use super::*;

    fn status(error: CallError) -> (Code, String) {
        match to_wire(&error) {
            ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn codes_are_the_protocols() {
        let id = || ContainerId::parse("c1").unwrap();
        let (code, text) = status(LookupError::Container(id()).into());
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(text.contains("Invalid container id"), "{text}");
        let exec = ExecId::parse("e1").unwrap();
        assert_eq!(status(LookupError::Process(exec).into()).0, Code::NOT_FOUND);
        assert_eq!(
            status(
                Denied {
                    rule: "X",
                    reason: None
                }
                .into()
            )
            .0,
            Code::PERMISSION_DENIED
        );
        assert_eq!(status(StreamError::NoTerminal.into()).0, Code::UNAVAILABLE);
        let (code, text) = status(CallError::Unimplemented("AddSwap"));
        assert_eq!(code, Code::UNIMPLEMENTED);
        assert!(text.contains("AddSwap"), "{text}");
    }

    #[test]
    fn causes_are_told_once_in_one_line() {
        let source = std::io::Error::other("executable 'x' not found\nin $PATH");
        let error = CallError::Create(CreateError::Prepare {
            what: "the streams",
            container: ContainerId::parse("c1").unwrap(),
            source,
        });
        let (_, text) = status(error);
        assert_eq!(
            text,
            "cannot make the streams of container c1: executable 'x' missing in $PATH"
        );
    }

    #[test]
    fn a_message_is_bounded() {
        let error = CallError::Volume(std::io::Error::other("ä".repeat(MESSAGE_BYTES_MAX)));
        assert!(status(error).1.len() <= MESSAGE_BYTES_MAX);
    }
}
