//! A kubelet's part for pods that were not recorded: from what a user writes to the calls that
//! containerd gets.
//!
//! `objects` plays the API server and the controllers, `place` says where volumes lie, and
//! `config` and `environment` say what containerd is asked. The recordings hold these to what a
//! kubelet does: `tests/kubelet.rs` compares, field by field.

mod config;
mod environment;
mod objects;
mod place;

pub use config::{container_config, sandbox_config};
pub use environment::Known;
pub use objects::Objects;
