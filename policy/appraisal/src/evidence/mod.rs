//! Evidence as received: its forms, and the question that a verifier has.

mod any;
mod error;
mod logged;
mod question;

pub use self::{
    any::Evidence,
    error::{EvidenceError, MAX_EVIDENCE_LEN},
    logged::{LoggedEvidence, LoggedExpected},
    question::{Freshness, Question, QuestionError},
};
