//! The pod's containers and their processes.
//!
//! Each container has its own values; the table that names them is locked only to
//! look something up. [`Containers::create`] and its siblings take a
//! [`Permit`]: what nobody judged cannot be done.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use agent_evidence::log::ContainerDigests;
use agent_measured::Measured;
use agent_protocol::{
    id::{ContainerId, ExecId, ProcessId},
    rpc::agent::StatsContainerResponse,
};
use agent_requests::{
    ContainerRequest, GetDiagnosticData, ProcessRequest, ProcessSpec, ResumeContainer,
    StatsContainer, UpdateContainer,
};
use policy_engine::{Permit, Place, environment::PodFacts};
use thiserror::Error;

use crate::{
    cgroup::Cgroup, host_files::HostFiles, images::Images, oom::OomEvents, parts::Parts,
    pod_pause::PodPause, process::Process, reaper::Reaper, stats, stdio::Output, termination,
    volumes::Storages,
};

/// Most containers of one pod, the removed ones left out.
pub(crate) const CONTAINERS_MAX: usize = 512;
/// Most processes of one container that were started by request and not yet forgotten.
pub(crate) const EXECS_MAX: usize = 1024;

/// One container.
#[derive(Debug)]
pub struct Container {
    pub(crate) id: ContainerId,
    pub(crate) cgroup: Cgroup,
    pub(crate) init: Arc<Process>,
    /// Nothing while the process is being made.
    pub(crate) execs: Mutex<BTreeMap<ExecId, Option<Arc<Process>>>>,
    /// What the log says of it.
    pub(crate) digests: ContainerDigests,
    pub(crate) facts: PodFacts,
    /// What execs inherit where their request says nothing.
    pub(crate) defaults: ProcessSpec,
    pub(crate) shared_processes: bool,
    pub(crate) is_pause: bool,
    /// Whether its processes may open sockets of `AF_VSOCK`.
    pub(super) vsock: bool,
    pub(crate) termination: Option<PathBuf>,
    pub(crate) started: AtomicBool,
    /// Grows from container to container, by when they were started; by when they were
    /// made until then.
    pub(crate) age: AtomicU64,
    pub(crate) parts: Mutex<Parts>,
    /// Its place in what the policy knows of the pod.
    pub(crate) place: Place,
}

/// All containers of the pod, and what they share.
#[derive(Debug)]
pub struct Containers {
    pub(crate) table: Mutex<BTreeMap<ContainerId, Option<Arc<Container>>>>,
    pub(crate) pause: PodPause,
    pub(crate) reaper: Reaper,
    pub(crate) oom: Arc<OomEvents>,
    pub(crate) storages: Arc<Storages>,
    pub(crate) images: Arc<Images>,
    pub(crate) log: Arc<Measured>,
    pub(crate) host_files: HostFiles,
    pub(crate) pipe_size: Option<usize>,
    pub(crate) output_patience: Duration,
    pub(crate) serial: AtomicU64,
}

/// A request names something that is not there.
#[derive(Debug, Error)]
pub enum LookupError {
    /// No such container.
    #[error("Invalid container id {0}: the pod has no such container")]
    Container(ContainerId),
    /// No such process; it may have ended and been forgotten.
    #[error("process {0} has ended")]
    Process(ExecId),
}

/// A container cannot be looked at or changed as asked.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// It is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The kernel refused.
    #[error("cannot {action} container {container}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// With which container.
        container: ContainerId,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What containers need of the rest of the agent.
#[derive(Debug)]
pub struct Surroundings {
    /// Waits for processes.
    pub reaper: Reaper,
    /// Hears of containers out of memory.
    pub oom: Arc<OomEvents>,
    /// Volumes of the pod.
    pub storages: Arc<Storages>,
    /// Gets images.
    pub images: Arc<Images>,
    /// Where everything is noted before it is done.
    pub log: Arc<Measured>,
    /// Size of the streams' pipes, if not the kernel's default.
    pub pipe_size: Option<usize>,
    /// How long a container's first process waits for a host that reads nothing.
    pub output_patience: Duration,
}

impl Containers {
    /// No containers yet.
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        Self {
            table: Mutex::default(),
            pause: PodPause::default(),
            reaper: surroundings.reaper,
            oom: surroundings.oom,
            storages: surroundings.storages,
            images: surroundings.images,
            log: surroundings.log,
            host_files: HostFiles::default(),
            pipe_size: surroundings.pipe_size,
            output_patience: surroundings.output_patience,
            serial: AtomicU64::new(0),
        }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn find(&self, id: &ContainerId) -> Result<Arc<Container>, LookupError> {
        let table = lock(&self.table);
        let found = table.get(id).and_then(Option::as_ref).map(Arc::clone);
        found.ok_or_else(|| LookupError::Container(id.clone()))
    }

    /// The ids of all containers, those first that were started last.
    #[must_use]
    pub(crate) fn youngest_first(&self) -> Vec<ContainerId> {
        let table = lock(&self.table);
        let ages = table.iter().map(|(id, container)| {
            let age = container
                .as_ref()
                .map(|one| one.age.load(Ordering::Relaxed));
            (id.clone(), age)
        });
        youngest_first(ages.collect())
    }

    /// The process that a request names.
    ///
    /// # Errors
    ///
    /// When there is no such container or process.
    pub fn process<R: ProcessRequest>(
        &self,
        permit: &Permit<R>,
    ) -> Result<Arc<Process>, LookupError> {
        let (container, process) = permit.request().names();
        self.named(container, process)
    }

    /// Lets the output of a process run dry that the policy keeps from the host, so that
    /// the process does not block. The bytes go nowhere, and nothing says whether there is
    /// such a process.
    pub fn discard_output(&self, container: &ContainerId, process: &ProcessId, output: Output) {
        if let Ok(process) = self.named(container, process) {
            process.discard(output);
        }
    }

    fn named(
        &self,
        container: &ContainerId,
        process: &ProcessId,
    ) -> Result<Arc<Process>, LookupError> {
        let container = self.find(container)?;
        match process {
            ProcessId::Init => Ok(Arc::clone(&container.init)),
            ProcessId::Exec(exec) => lock(&container.execs)
                .get(exec)
                .and_then(Option::clone)
                .ok_or_else(|| LookupError::Process(exec.clone())),
        }
    }

    fn with_cgroup<R: ContainerRequest>(
        &self,
        permit: &Permit<R>,
        action: &'static str,
        act: impl FnOnce(&Cgroup) -> io::Result<()>,
    ) -> Result<(), ContainerError> {
        let container = self.find(permit.request().container())?;
        act(&container.cgroup).map_err(|source| ContainerError::Kernel {
            action,
            container: container.id.clone(),
            source,
        })
    }

    /// Freezes a container.
    ///
    /// # Errors
    ///
    /// When it is not there or the kernel refuses.
    pub fn pause(
        &self,
        permit: &Permit<agent_requests::PauseContainer>,
    ) -> Result<(), ContainerError> {
        self.with_cgroup(permit, "pause", |cgroup| cgroup.freeze(true))
    }

    /// Thaws a container.
    ///
    /// # Errors
    ///
    /// When it is not there or the kernel refuses.
    pub fn resume(&self, permit: &Permit<ResumeContainer>) -> Result<(), ContainerError> {
        self.with_cgroup(permit, "resume", |cgroup| cgroup.freeze(false))
    }

    /// Changes a container's limits.
    ///
    /// # Errors
    ///
    /// When it is not there or the kernel refuses.
    pub fn update(&self, permit: &Permit<UpdateContainer>) -> Result<(), ContainerError> {
        let request = permit.request();
        let container = self.find(&request.container)?;
        container
            .cgroup
            .update(&request.limits)
            .map_err(|source| ContainerError::Kernel {
                action: "change the limits of",
                container: container.id.clone(),
                source,
            })
    }

    /// Reads what a container uses.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn stats(
        &self,
        permit: &Permit<StatsContainer>,
    ) -> Result<StatsContainerResponse, ContainerError> {
        let container = self.find(permit.request().container())?;
        stats::read(&container.cgroup).map_err(|source| ContainerError::Kernel {
            action: "read the statistics of",
            container: container.id.clone(),
            source,
        })
    }

    /// The message that a container left at its end; empty if it left none.
    ///
    /// # Errors
    ///
    /// When the container is not there or its file cannot be read.
    pub fn termination_message(
        &self,
        permit: &Permit<GetDiagnosticData>,
    ) -> Result<String, ContainerError> {
        let container = self.find(&permit.request().container)?;
        let Some(file) = &container.termination else {
            return Ok(String::new());
        };
        match termination::read(file) {
            Ok(message) => Ok(message),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(ContainerError::Kernel {
                action: "read the termination message of",
                container: container.id.clone(),
                source,
            }),
        }
    }
}

/// Those that are still being made come first: nothing of the pod can need them.
fn youngest_first(mut ages: Vec<(ContainerId, Option<u64>)>) -> Vec<ContainerId> {
    ages.sort_by_key(|(_, age)| std::cmp::Reverse(age.unwrap_or(u64::MAX)));
    ages.into_iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_end_in_the_reverse_order_of_their_start() {
        let id = |text: &str| ContainerId::parse(text).unwrap();
        let ages = vec![
            (id("a-last"), Some(7)),
            (id("b-being-made"), None),
            (id("c-second"), Some(5)),
            (id("d-first"), Some(1)),
        ];
        let expected = ["b-being-made", "a-last", "c-second", "d-first"].map(id);
        assert_eq!(youngest_first(ages), expected);
    }
}
