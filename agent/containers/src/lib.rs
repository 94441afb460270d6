//! The pod's containers: their root file systems, processes, streams and volumes, and
//! the files that the host puts beside them.
//!
//! It takes parsed requests ([`agent_requests`]) in permits: what nobody judged cannot be
//! done. It distrusts the images that it runs and the workloads in them, and the host
//! where a permit says less than everything; it knows nothing of RPC, of the network or
//! of who judges.
//!
//! Where to start reading: [`Containers::create`] makes a container, [`Containers::exec`]
//! a further process, [`Containers::remove`] ends one. [`job`] says why the container
//! library works in processes of its own, [`helper`] is such a process, and [`Reaper`]
//! waits for every process that there is.

mod cgroup;
mod console;
mod copies;
mod copy_file;
mod covers;
mod create;
mod create_error;
mod devices;
mod dispositions;
mod exec;
mod floor;
mod full;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod granted;
pub mod helper;
mod host_files;
mod idle;
mod images;
mod inside;
pub mod job;
mod judged;
mod memory;
pub mod namespaces;
mod oom;
mod parts;
pub mod pause;
mod pinned;
mod pod_pause;
#[cfg(test)]
mod private_mounts;
mod process;
mod program;
mod pull_events;
mod pulled;
mod reaper;
mod remove;
mod root;
mod shared_root;
mod signal;
mod spec;
mod stats;
mod stdio;
mod subpath;
mod sysctls;
mod table;
mod termination;
mod unread;
mod user;
mod verdict;
mod versions;
mod volumes;
mod watched;
mod wiring;

pub use cgroup::Cgroup;
pub use copy_file::CopyError;
pub use create_error::CreateError;
pub use exec::ExecError;
pub use granted::Use;
pub use images::{Images, ImagesError, PullConfig};
pub use oom::OomEvents;
pub use pod_pause::PauseError;
pub use process::{Process, StreamError};
pub use reaper::{Exit, ExitStatus, Expecting, Reaper};
pub use remove::RemoveError;
pub use root::RootError;
pub use stdio::{Output, WorkloadEnds};
pub use sysctls::SysctlError;
pub use table::{Container, ContainerError, Containers, LookupError, Surroundings};
pub use user::UserError;
pub use volumes::{StorageError, Storages, VolumeError};
