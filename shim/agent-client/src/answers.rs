//! What the agent's answers must look like to be used.
//!
//! The guest may answer anything. Each answer becomes a bounded type here, or is refused as a
//! whole; what containerd gets is made from those types only.

use agent_protocol::{
    id::ContainerId,
    limits::STREAM_CHUNK_BYTES_MAX,
    rpc::agent::{
        GetDiagnosticDataResponse, OOMEvent, ReadStreamResponse, WaitProcessResponse,
        WriteStreamResponse,
    },
};
use thiserror::Error;

use crate::GuestText;

/// Why an answer of the guest was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// More bytes than an answer to this request may have.
    #[error("it has more than {max} bytes")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// The bytes are no message of the protocol.
    #[error("it is malformed")]
    Malformed,
    /// A list that is longer than what it lists can be.
    #[error("it lists more than {max} {what}")]
    TooMany {
        /// What it lists.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A name that nothing of this kind has.
    #[error("it holds a name that no {what} has")]
    Name {
        /// What would have the name.
        what: &'static str,
    },
    /// An id that is none of this pod's.
    #[error("it is about a container that this pod does not have")]
    ForeignId,
    /// An exit code that no process has.
    #[error("no process exits with {0}")]
    ExitCode(i32),
    /// The guest claims to have taken more than it was sent.
    #[error("it takes more bytes than were sent")]
    TookMore,
}

/// The exit code of a process, or 128 and the signal that killed it.
///
/// # Errors
///
/// [`AnswerError::ExitCode`] for any other number.
pub fn exit_code(answer: &WaitProcessResponse) -> Result<u8, AnswerError> {
    u8::try_from(answer.status).map_err(|_| AnswerError::ExitCode(answer.status))
}

/// A piece of a process's output.
///
/// # Errors
///
/// [`AnswerError::TooLong`] if it is more than was asked for.
pub fn output(answer: ReadStreamResponse) -> Result<Vec<u8>, AnswerError> {
    if answer.data.len() > STREAM_CHUNK_BYTES_MAX {
        return Err(AnswerError::TooLong {
            max: STREAM_CHUNK_BYTES_MAX,
        });
    }
    Ok(answer.data)
}

/// How many of the bytes sent to a process were taken.
///
/// # Errors
///
/// [`AnswerError::TookMore`].
pub fn taken(answer: &WriteStreamResponse, sent: usize) -> Result<usize, AnswerError> {
    usize::try_from(answer.len)
        .ok()
        .filter(|taken| *taken <= sent)
        .ok_or(AnswerError::TookMore)
}

/// The container that ran out of memory, if it is one of the pod's.
///
/// # Errors
///
/// [`AnswerError::ForeignId`].
pub fn out_of_memory(
    event: &OOMEvent,
    is_of_this_pod: impl Fn(&ContainerId) -> bool,
) -> Result<ContainerId, AnswerError> {
    ContainerId::parse(&event.container_id)
        .ok()
        .filter(is_of_this_pod)
        .ok_or(AnswerError::ForeignId)
}

/// What a container left in its termination log.
#[must_use]
pub fn termination_message(answer: &GetDiagnosticDataResponse) -> GuestText {
    GuestText::message(&answer.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_processes_have() {
        for (status, code) in [(0, 0), (137, 137), (255, 255)] {
            let answer = WaitProcessResponse {
                status,
                ..Default::default()
            };
            assert_eq!(exit_code(&answer), Ok(code));
        }
        for status in [-1, 256, i32::MAX, i32::MIN] {
            let answer = WaitProcessResponse {
                status,
                ..Default::default()
            };
            assert_eq!(exit_code(&answer), Err(AnswerError::ExitCode(status)));
        }
    }

    #[test]
    fn a_guest_neither_sends_nor_takes_more_than_was_asked_for() {
        let chunk = |bytes| ReadStreamResponse {
            data: vec![7; bytes],
            ..Default::default()
        };
        let max = STREAM_CHUNK_BYTES_MAX;
        assert_eq!(output(chunk(max)).map(|data| data.len()), Ok(max));
        assert_eq!(output(chunk(max + 1)), Err(AnswerError::TooLong { max }));
        let answer = |len| WriteStreamResponse {
            len,
            ..Default::default()
        };
        assert_eq!(taken(&answer(5), 5), Ok(5));
        assert_eq!(taken(&answer(6), 5), Err(AnswerError::TookMore));
        assert_eq!(taken(&answer(u32::MAX), 5), Err(AnswerError::TookMore));
    }

    #[test]
    fn only_containers_of_this_pod_run_out_of_memory() {
        let event = |id: &str| OOMEvent {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let known = |id: &ContainerId| id.as_str() == "web";
        assert_eq!(
            out_of_memory(&event("web"), known).map(|id| id.to_string()),
            Ok("web".to_owned())
        );
        let long = "w".repeat(1 << 20);
        for id in ["", "other", "web\n", "../web", "web\0", &long] {
            assert_eq!(
                out_of_memory(&event(id), known),
                Err(AnswerError::ForeignId)
            );
        }
        // Whatever the pod says, an id is an id.
        assert!(out_of_memory(&event("a b"), |_| true).is_err());
    }

    #[test]
    fn a_termination_message_is_short_and_clean() {
        let answer = GetDiagnosticDataResponse {
            data: format!("out of cheese\n\x1b[2J{}", "x".repeat(1 << 20)),
            ..Default::default()
        };
        let message = termination_message(&answer);
        assert!(message.as_str().starts_with("out of cheese\n[2Jx"));
        assert_eq!(message.as_str().len(), crate::MESSAGE_BYTES_MAX);
    }
}
