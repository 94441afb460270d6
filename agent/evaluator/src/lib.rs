//! Evaluates the owner's Rego in a process that is bounded and can be lost.
//!
//! A policy is data of the owner, but what it is asked about comes from the host, and Rego can
//! take any time, memory and depth of calls. The guest's first process must never end, so it
//! evaluates in a child of its own program ([`run`]): an unprivileged process without anything
//! to open, limited in memory, that ends itself when an answer takes too long. When it has
//! ended, that request is denied, and the next one is answered by a new child, which loads the
//! same text; the policy's state is kept by the parent.

mod child;
mod deadline;
mod parent;

pub use child::run;
pub use parent::{Bounded, EVALUATOR_ARGUMENT};
