//! The shim's configuration file, and what a pod makes of it.
//!
//! [`Source`] finds the files, has each checked by itself, so that a mistake is reported
//! with its file and line, and merges them to a [`Config`]. [`annotations`] let a pod
//! change what the node's operator permits, and [`Size`] is the size of the VM that
//! follows from the pod's limits.
//!
//! The files are the node operator's, who is trusted by the shim, though not by the
//! workload. Annotations are the pod's, which the shim does not trust.

pub mod annotations;
mod config;
mod keys;
mod load;
mod options;
mod schema;
mod sizing;

pub use config::{Accelerator, Agent, Config, Internetworking, Qemu, Runtime, Tee};
pub use load::{ConfigError, Source};
pub use options::{OptionsError, TaskOptions};
pub use sizing::{Limits, Room, Size, SizingError, VM_OWN_MIB};
