//! A kubelet's part for pods that were not recorded: from what a user writes to the calls that
//! containerd gets.
//!
//! `objects` plays the API server and the controllers, `place` says where volumes lie, `layout` and
//! `files` what lies in them, and `config` and `environment` what containerd is asked. The recordings hold these to what a
//! kubelet does: `tests/kubelet.rs` compares, field by field.

mod config;
mod environment;
mod files;
mod layout;
mod objects;
mod place;

pub use config::{container_config, sandbox_config};
pub use environment::Known;
pub(crate) use environment::{environment, list, words};
pub(crate) use layout::layout;
pub use objects::Objects;
pub(crate) use place::{directory, place, volume_of};
