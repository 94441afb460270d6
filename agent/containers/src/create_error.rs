//! Why a container is not made or started.

use std::{io, path::PathBuf};

use agent_measured::NoteError;
use agent_protocol::id::ContainerId;
use agent_workload::WorkloadError;
use policy_engine::Denied;
use thiserror::Error;

use crate::{
    granted::Use,
    job::JobError,
    pod_pause::PauseError,
    root::RootError,
    sysctls::SysctlError,
    table::{CONTAINERS_MAX, LookupError},
    user::UserError,
    volumes::StorageError,
};

/// Why a container cannot be made or started.
#[derive(Debug, Error)]
pub enum CreateError {
    /// It is there already.
    #[error("container {0} is there already")]
    Exists(ContainerId),
    /// The pod has too many containers.
    #[error("the pod has {CONTAINERS_MAX} containers already")]
    TooMany,
    /// There is no such container to start.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It was started before.
    #[error("container {0} was started before")]
    Started(ContainerId),
    /// A volume cannot be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its root file system cannot be had.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its user cannot be found.
    #[error(transparent)]
    User(#[from] UserError),
    /// A setting of the pod's namespaces cannot be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// There is one pause container in a pod, and it is not the one asked for.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// The source of a mount is not there.
    #[error("cannot open the source of the mount at {}", destination.display())]
    Source {
        /// Where it was to be mounted.
        destination: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It would do what nobody granted.
    #[error("the container {0}, which is not granted")]
    NotGranted(Use),
    /// A file or stream of the guest cannot be made.
    #[error("cannot make {what} of container {container}")]
    Prepare {
        /// What.
        what: &'static str,
        /// For whom.
        container: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be told in the log.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// It cannot be measured.
    #[error("the container cannot be measured")]
    Log(#[from] NoteError),
    /// The process cannot be made.
    #[error("cannot {action} container {container}")]
    Job {
        /// What was tried.
        action: &'static str,
        /// With which container.
        container: ContainerId,
        /// The program that it was to run.
        executable: String,
        /// Why.
        #[source]
        source: JobError,
    },
    /// The policy does not allow what it is.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A worker of the agent failed.
    #[error("a worker thread of the agent failed")]
    Worker(#[source] tokio::task::JoinError),
}
