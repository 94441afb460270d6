//! What a failed request means.
//!
//! The guest chooses the code and text of its refusals. The text is bounded and cleaned, and
//! of the codes only those are passed on that say nothing about what containerd itself knows:
//! which containers there are, and whether the shim can be reached.

use thiserror::Error;
use ttrpc::Code;

use crate::{AnswerError, GuestText};

/// Codes that the guest's refusals may have; any other counts as an internal error.
const CODES: [Code; 6] = [
    Code::FAILED_PRECONDITION,
    Code::INTERNAL,
    Code::PERMISSION_DENIED,
    Code::RESOURCE_EXHAUSTED,
    Code::UNIMPLEMENTED,
    Code::UNKNOWN,
];
/// How much of a text is searched for what it means.
const SEARCHED_BYTES: usize = 256;

/// Why a request to the guest failed.
#[derive(Debug, Error)]
#[error("{method} failed in the guest: {fault}")]
pub struct AgentError {
    /// The agent's method.
    pub method: &'static str,
    fault: Fault,
}

#[derive(Debug, Error)]
enum Fault {
    #[error("{text}")]
    Refused {
        code: Code,
        text: GuestText,
        is_gone: bool,
    },
    #[error("no answer in time")]
    Late,
    #[error("the connection to the guest is closed")]
    Closed,
    #[error("{0}")]
    Transport(GuestText),
    #[error("its answer cannot be used: {0}")]
    Answer(#[from] AnswerError),
}

impl AgentError {
    /// What came back from the guest, or did not.
    #[must_use]
    pub fn new(method: &'static str, error: &ttrpc::Error) -> Self {
        let fault = match error {
            ttrpc::Error::RpcStatus(status) if status.code() == Code::DEADLINE_EXCEEDED => {
                Fault::Late
            }
            ttrpc::Error::RpcStatus(status) => refusal(status),
            ttrpc::Error::RemoteClosed => Fault::Closed,
            other => Fault::Transport(GuestText::line(&other.to_string())),
        };
        Self { method, fault }
    }

    /// An answer that came and was refused.
    pub(crate) fn answer(method: &'static str, error: AnswerError) -> Self {
        let fault = error.into();
        Self { method, fault }
    }

    /// The code for containerd: the agent's own, or what a lost connection comes to.
    #[must_use]
    pub fn code(&self) -> Code {
        match &self.fault {
            Fault::Refused { code, .. } => *code,
            Fault::Late => Code::DEADLINE_EXCEEDED,
            Fault::Closed | Fault::Transport(_) => Code::UNAVAILABLE,
            Fault::Answer(_) => Code::INTERNAL,
        }
    }

    /// Whether the guest says that the process or container does not exist (any more).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.fault, Fault::Refused { is_gone: true, .. })
    }

    /// Whether the guest answered, with something that cannot be used.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self.fault, Fault::Answer(_))
    }
}

fn refusal(status: &ttrpc::Status) -> Fault {
    let code = status.code();
    let start = status.message.char_indices();
    let start = start.take_while(|(at, _)| *at < SEARCHED_BYTES);
    let start: String = start.map(|(_, character)| character).collect();
    let is_gone = code == Code::NOT_FOUND
        || (code == Code::INVALID_ARGUMENT && start.contains("nvalid container id"));
    let known = CODES.contains(&code);
    Fault::Refused {
        code: if known { code } else { Code::INTERNAL },
        text: GuestText::line(&status.message),
        is_gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, text: &str) -> AgentError {
        AgentError::new("Method", &ttrpc::error::get_rpc_status(code, text))
    }

    #[test]
    fn a_refusal_tells_containerd_nothing_about_ids_or_the_shim() {
        for code in CODES {
            assert_eq!(refused(code, "x").code(), code);
        }
        for code in [
            Code::OK,
            Code::CANCELLED,
            Code::INVALID_ARGUMENT,
            Code::NOT_FOUND,
            Code::ALREADY_EXISTS,
            Code::ABORTED,
            Code::OUT_OF_RANGE,
            Code::UNAVAILABLE,
            Code::DATA_LOSS,
            Code::UNAUTHENTICATED,
        ] {
            assert_eq!(refused(code, "x").code(), Code::INTERNAL, "{code:?}");
        }
        let mut status = ttrpc::get_status(Code::OK, "x");
        status.code = ttrpc::proto::Code::OK.into();
        let odd = ttrpc::Error::RpcStatus(status);
        assert_eq!(AgentError::new("Method", &odd).code(), Code::INTERNAL);
        let lost = AgentError::new("Method", &ttrpc::Error::RemoteClosed);
        assert_eq!(lost.code(), Code::UNAVAILABLE);
    }

    #[test]
    fn a_refusal_s_text_is_bounded_and_clean() {
        let text = refused(
            Code::UNKNOWN,
            &format!("no\n\x1b[2J{}", "x".repeat(4 << 20)),
        );
        let text = text.to_string();
        assert!(text.starts_with("Method failed in the guest: no [2Jx"));
        assert!(text.len() < crate::LINE_BYTES_MAX + 64, "{}", text.len());
        let other = ttrpc::Error::Others(format!("\x07{}", "y".repeat(1 << 20)));
        let text = AgentError::new("Method", &other).to_string();
        assert!(!text.contains('\x07') && text.len() < crate::LINE_BYTES_MAX + 64);
    }

    #[test]
    fn what_is_gone_is_said_by_code_or_by_kata_s_words() {
        assert!(refused(Code::NOT_FOUND, "x").is_gone());
        assert!(refused(Code::INVALID_ARGUMENT, "Invalid container id").is_gone());
        assert!(!refused(Code::INVALID_ARGUMENT, "no").is_gone());
        let far = format!("{}Invalid container id", "é".repeat(1000));
        assert!(!refused(Code::INVALID_ARGUMENT, &far).is_gone());
    }
}
