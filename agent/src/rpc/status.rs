//! Errors on their way to the host: which code, which words.
//!
//! [`to_wire`] is the only function that makes an answer of an error. Its words come from
//! [`crate::told`]; the errors' own texts go no further than the guest's memory.

use std::error::Error as StdError;

use agent_containers::{
    ContainerError, CopyError, CreateError, ExecError, LookupError, PauseError, RemoveError,
    StreamError,
};
use agent_requests::RequestError;
use policy_engine::Denied;
use thiserror::Error;
use tracing::warn;
use ttrpc::Code;

use crate::{
    judge::SetPolicyError,
    network::NetworkError,
    sandbox::SandboxError,
    told::{self, Field, Told},
};

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
        CallError::Denied(_) | CallError::Create(CreateError::Denied(_)) => Code::PERMISSION_DENIED,
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
        CallError::Create(CreateError::Exists(_) | CreateError::Pause(PauseError::Second))
        | CallError::Exec(ExecError::Exists { .. })
        | CallError::Sandbox(SandboxError::Exists) => Code::ALREADY_EXISTS,
        CallError::Create(CreateError::Started(_) | CreateError::NotGranted(_))
        | CallError::Create(CreateError::Pause(PauseError::None))
        | CallError::Sandbox(SandboxError::New | SandboxError::Ended)
        | CallError::Exec(ExecError::NotRunning(_) | ExecError::Pause(_)) => {
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

/// The one function that makes the host's answer of an error.
pub(super) fn to_wire(call: &'static str, error: &CallError) -> ttrpc::Error {
    let code = code(error);
    let mut text = told(error).to_string();
    warn!(
        call,
        told = text,
        error = error as &dyn StdError,
        "call failed"
    );
    if code != Code::NOT_FOUND {
        text = without_gone_words(&text);
    }
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, text))
}

fn told(error: &CallError) -> Told {
    match error {
        CallError::Request(error) => told::request(error),
        CallError::Denied(denied) => told::denial(denied),
        CallError::Policy(error) => set_policy(error),
        CallError::Lookup(error) => told::lookup(error),
        CallError::Create(error) => told::create(error),
        CallError::Exec(error) => told::exec(error),
        CallError::Remove(error) => told::remove(error),
        CallError::Container(error) => told::container(error),
        CallError::Stream(error) => told::stream(error),
        CallError::Sandbox(error) => told::sandbox(error),
        CallError::Network(error) => told::network(error),
        CallError::Copy(error) => told::copy_file(error),
        CallError::Volume(error) => Told::new("cannot look at the volume").errno(error),
        CallError::Unimplemented(call) => {
            Told::new("{call} is not implemented in this guest").with(Field::call(call))
        }
        CallError::Lost => Told::new("the agent lost the work of this call"),
    }
}

fn set_policy(error: &SetPolicyError) -> Told {
    match error {
        SetPolicyError::TooLate => Told::new(
            "SetPolicyRequest is blocked by policy: a policy is taken once, before any other \
             request, and not beside initdata",
        ),
        SetPolicyError::Digest { found, bound } => Told::new(
            "SetPolicyRequest is blocked by policy: the policy has the digest {policy}, the \
             launch binds {bound}",
        )
        .with(Field::policy(*found))
        .with(Field::bound(*bound)),
        SetPolicyError::Log(error) => {
            Told::new("the policy cannot be measured").because(told::note(error))
        }
    }
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
    use policy_engine::Engine;

    use super::*;

    fn status(error: CallError) -> (Code, String) {
        match to_wire("Test", &error) {
            ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn codes_are_the_protocols() {
        struct X;

        impl policy_engine::Request for X {
            const RULE: &'static str = "X";
        }
        let id = || ContainerId::parse("c1").unwrap();
        let (code, text) = status(LookupError::Container(id()).into());
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(text.contains("Invalid container id"), "{text}");
        let exec = ExecId::parse("e1").unwrap();
        assert_eq!(status(LookupError::Process(exec).into()).0, Code::NOT_FOUND);
        assert_eq!(
            status(Engine::deny_all().judge(X).err().unwrap().into()).0,
            Code::PERMISSION_DENIED
        );
        assert_eq!(status(StreamError::NoTerminal.into()).0, Code::UNAVAILABLE);
        let (code, text) = status(CallError::Unimplemented("AddSwap"));
        assert_eq!(code, Code::UNIMPLEMENTED);
        assert!(text.contains("AddSwap"), "{text}");
    }

    #[test]
    fn the_kernel_s_reason_is_told_and_a_library_s_is_not() {
        let prepare = |source| {
            status(CallError::Create(CreateError::Prepare {
                what: "the streams",
                container: ContainerId::parse("c1").unwrap(),
                source,
            }))
            .1
        };
        assert_eq!(
            prepare(std::io::Error::from_raw_os_error(2)),
            "cannot make the streams of container c1: No such file or directory"
        );
        assert_eq!(
            prepare(std::io::Error::other("executable 'x' not found\nin $PATH")),
            "cannot make the streams of container c1: other error"
        );
    }

    #[test]
    fn a_message_is_bounded() {
        let name = "ä".repeat(5000);
        let error = NetworkError::NoInterface(name);
        assert!(status(error.into()).1.len() <= 1024);
    }

    #[test]
    fn words_for_what_is_gone_stand_in_answers_about_the_gone_only() {
        let error = NetworkError::NoInterface("not found, does not exist".to_owned());
        let (_, text) = status(error.into());
        assert!(
            !text.contains("not found") && !text.contains("not exist"),
            "{text}"
        );
    }
}

#[cfg(test)]
#[path = "marker_tests.rs"]
mod marker_tests;
