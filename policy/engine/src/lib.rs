//! Decides each request of the host: a permit, or a denial.
//!
//! The engine belongs to the workload's owner and distrusts the host that sends
//! the requests. It is pure: request in, decision out, no I/O.
//!
//! A request becomes usable only inside a [`Permit`], and only [`Engine::judge`]
//! makes one. An agent whose handlers take `Permit<R>` therefore cannot act on a
//! request that nobody judged: it does not compile.
//!
//! What the owner allows is a [`document`]; the rules that judge by it are
//! fixed (`rules.rego`, `docs/policy.md`). A guest without a policy allows everything, and one
//! that cannot use its policy denies everything.

mod asked;
pub mod capabilities;
mod claim;
mod defaults;
mod denied;
pub mod document;
mod engine;
pub mod environment;
mod expected;
mod facts;
mod grants;
pub mod kernel_paths;
mod pod;
pub mod rego;
mod rules;
pub mod seccomp;
pub mod workload;

pub use asked::{
    Asked, AskedContainer, AskedExec, AskedProcesses, AskedUser, AskedVolume, Finished, Request,
};
pub use claim::{Claim, Permit, Place};
pub use defaults::CAPABILITIES as DEFAULT_CAPABILITIES;
pub use denied::{Code, DENIED_BYTES_MAX, Denied, Finding};
pub use engine::{Engine, LoadError};
pub use expected::{Expected, NormalMount, OfImage};
pub use grants::Grants;
pub use rules::{rules_digest, rules_digest_hex};
