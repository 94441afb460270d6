//! The shim's configuration file, and what a pod makes of it: its annotations change what
//! the node's operator lets them change, its limits decide the size of its VM.
//!
//! The files are the node operator's, who is trusted by the shim, though not by the
//! workload. The pod's annotations are bounded by what the files allow.

pub mod annotations;
mod config;
mod load;
mod options;
mod schema;
mod sizing;

pub use config::{Accelerator, Agent, Config, Internetworking, Qemu, Runtime, Tee};
pub use load::{ConfigError, Source};
pub use options::{OptionsError, TaskOptions};
pub use sizing::{Limits, Size, SizingError};
