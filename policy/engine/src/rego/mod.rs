//! The Kata-style front door: a whole `policy.rego` of the package `agent_policy`.
//!
//! Policies that Kata Containers 4.1's generator wrote load and decide as they do there, and
//! the input of a rule has the shape that it has there. What differs, on purpose:
//!
//! - a request that was allowed and then failed leaves the state as it was;
//! - nothing turns denials off ([`LoadError::IgnoresFailures`]);
//! - a rule that cannot be evaluated denies, and no text of a policy leaves the guest;
//! - functions whose answer is not in the request are refused when a policy is loaded;
//! - a rule that is a constant is answered without Rego.
//!
//! The host wrote every request, and the owner the policy. Neither may take the guest's time or
//! memory without bound: see [`Evaluate`].

mod decision;
mod facts;
mod input;
mod interpreter;
mod patch;
mod policy;
mod rules;
mod scan;
mod state;
pub mod worker;

use std::fmt::Debug;

pub use facts::{COLUMNS_MAX, Facts, LINES_MAX, LoadError, PACKAGE, TEXT_BYTES_MAX};
pub use input::{Fields, INPUT_BYTES_MAX, InputError, input};
pub use interpreter::{EVALUATION_MAX, Interpreter};
pub use patch::PatchError;
pub use policy::{Allowed, Policy, Prepared, Refusal, Why};
pub use rules::RULES;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a rule is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The rule.
    pub rule: &'a str,
    /// The document `data`, as JSON.
    pub state: &'a str,
    /// Another number whenever the state is another.
    pub state_version: u64,
    /// The request, as JSON.
    pub input: &'a str,
}

/// What evaluates the rules of one loaded text.
pub trait Evaluate: Debug + Send {
    /// What the rule says, as JSON; nothing if it is undefined.
    ///
    /// # Errors
    ///
    /// [`Failure`] when there is no answer.
    fn evaluate(&mut self, question: &Question<'_>) -> Result<Option<String>, Failure>;
}

/// Why an evaluation has no answer. The policy is at fault, or the request that it was asked
/// about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Failure {
    /// Rego says that there is none: a conflict, a wrong type, a function that is not there.
    #[error("a rule cannot be evaluated")]
    Rule,
    /// It took longer than [`EVALUATION_MAX`].
    #[error("evaluation takes too long")]
    Time,
    /// It ended the process that it was evaluated in: it took more memory than it may, or calls
    /// too deep.
    #[error("evaluation takes too much memory, or nests too deep")]
    Memory,
    /// It cannot be evaluated at all: there is no process to do it in.
    #[error("rules cannot be evaluated now")]
    Process,
}
