//! A further process in a container.

use std::{
    fs, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use agent_evidence::log::ExecEntry;
use agent_measured::NoteError;
use agent_protocol::id::{ContainerId, ExecId};
use agent_requests::{ExecProcess, ProcessSpec, paths};
use agent_workload::WorkloadError;
use policy_engine::Permit;
use thiserror::Error;
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    inside::Inside,
    job::{Job, JobError},
    process::Process,
    spec::{exec_identity, executable_of, no_capabilities, within, write_private},
    table::{Container, Containers, EXECS_MAX, LookupError, lock},
    user::{self, UserError},
    wiring::{Wiring, WiringError},
};

/// How long an ended process is remembered, for its last output and late waiters.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Why a process cannot be started in a container.
#[derive(Debug, Error)]
pub enum ExecError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// It is the pause container, in which nothing else runs.
    #[error("no process can be started in the pause container {0}")]
    Pause(ContainerId),
    /// There is such a process.
    #[error("container {container} has a process {exec} already")]
    Exists {
        /// The container.
        container: ContainerId,
        /// The process.
        exec: ExecId,
    },
    /// There are too many.
    #[error("container {0} has {EXECS_MAX} such processes already")]
    TooMany(ContainerId),
    /// The user cannot be found.
    #[error(transparent)]
    User(#[from] UserError),
    /// It cannot be measured.
    #[error("the process cannot be measured")]
    Log(#[from] NoteError),
    /// It cannot be told in the log.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A file or stream cannot be made.
    #[error("cannot prepare a process in container {container}")]
    Prepare {
        /// The container.
        container: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container library refused.
    #[error("cannot start a process in container {container}")]
    Job {
        /// The container.
        container: ContainerId,
        /// The program that was to run.
        executable: String,
        /// Why.
        #[source]
        source: JobError,
    },
}

impl Containers {
    /// Starts a process in a running container.
    ///
    /// # Errors
    ///
    /// [`ExecError`]; no process is left then.
    pub async fn exec(&self, permit: Permit<ExecProcess>) -> Result<(), ExecError> {
        let ExecProcess {
            container,
            exec,
            process,
        } = permit.into_request();
        let container = self.find(&container)?;
        if container.is_pause {
            return Err(ExecError::Pause(container.id.clone()));
        }
        let reservation = container.reserve(&exec)?;
        let process = container.inherit(process);
        let (name, size) = (process.user_name.clone(), process.terminal_size);
        let process = self.run_exec(&container, &name, process).await?;
        if let Some(size) = size {
            process.set_size(size);
        }
        let process = Arc::new(process);
        reservation.take(&process);
        tokio::spawn(async move {
            process.exit.wait().await;
            sleep(FORGET_AFTER).await;
            let mut execs = lock(&container.execs);
            if let Some(Some(now)) = execs.get(&exec)
                && Arc::ptr_eq(now, &process)
            {
                execs.remove(&exec);
            }
        });
        Ok(())
    }

    async fn run_exec(
        &self,
        container: &Container,
        user_name: &str,
        spec: ProcessSpec,
    ) -> Result<Process, ExecError> {
        let id = &container.id;
        let prepare = |source| ExecError::Prepare {
            container: id.clone(),
            source,
        };
        let mut process = spec.process;
        if !user_name.is_empty() && user_name == container.defaults.user_name {
            user::same(&container.defaults.process, &mut process);
        } else {
            let (root, name) = (paths::bundle(id).join("rootfs"), user_name.to_owned());
            let resolved = spawn_blocking(move || {
                let inside = Inside::open(&root).map_err(|source| UserError::Read {
                    file: "root directory",
                    source,
                })?;
                user::settle(&inside, &name, &mut process).map(|_| process)
            });
            process = resolved
                .await
                .map_err(|error| prepare(io::Error::other(error)))??;
        }
        let file = paths::bundle(id).join(format!("exec-{}.json", self.serial()));
        let json = |error: serde_json::Error| prepare(error.into());
        let digests = agent_workload::exec(&process, &container.facts)?;
        let identity = exec_identity(&container.digests, &digests);
        self.log.note_counted(identity, |count| ExecEntry {
            container: id.to_string(),
            digests,
            count,
        })?;
        let text = serde_json::to_vec(&process).map_err(json)?;
        write_private(&file, &text).map_err(prepare)?;
        let user = process.user();
        let wiring = Wiring::make(
            self,
            (user.uid(), user.gid()),
            process.terminal().unwrap_or(false),
        )
        .map_err(prepare)?;
        let job = Job::Exec {
            id: id.to_string(),
            process: file.clone(),
            console: wiring.console_path(),
            vsock: container.vsock,
        };
        let result = wiring.run(self, &job).await;
        let _ = fs::remove_file(&file);
        let refused = |source| ExecError::Job {
            container: id.clone(),
            executable: executable_of(Some(&process)),
            source,
        };
        let made = result.map_err(|error| match error {
            WiringError::Job(source) => refused(source),
            WiringError::Stream(source) => prepare(source),
        })?;
        made.runs().await.map_err(refused)?;
        Ok(made)
    }
}

/// A name for a process that is being made; without the process it goes back to
/// what had it before.
struct Reservation<'a> {
    container: &'a Container,
    exec: ExecId,
    before: Option<Arc<Process>>,
    taken: bool,
}

impl Reservation<'_> {
    fn take(mut self, process: &Arc<Process>) {
        self.taken = true;
        lock(&self.container.execs).insert(self.exec.clone(), Some(Arc::clone(process)));
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut execs = lock(&self.container.execs);
        match self.before.take() {
            Some(before) => execs.insert(self.exec.clone(), Some(before)),
            None => execs.remove(&self.exec),
        };
    }
}

impl Container {
    /// Takes a name before there is a process, so that neither the name nor a place
    /// below [`EXECS_MAX`] can be had twice by asking at the same time.
    fn reserve(&self, exec: &ExecId) -> Result<Reservation<'_>, ExecError> {
        if !self.started.load(Ordering::Relaxed) || self.init.exit.status().is_some() {
            return Err(ExecError::NotRunning(self.id.clone()));
        }
        let mut execs = lock(&self.execs);
        let before = match execs.get(exec) {
            None if execs.len() >= EXECS_MAX => return Err(ExecError::TooMany(self.id.clone())),
            None => None,
            Some(Some(ended)) if ended.exit.status().is_some() => Some(Arc::clone(ended)),
            Some(_) => {
                return Err(ExecError::Exists {
                    container: self.id.clone(),
                    exec: exec.clone(),
                });
            }
        };
        execs.insert(exec.clone(), None);
        Ok(Reservation {
            container: self,
            exec: exec.clone(),
            before,
            taken: false,
        })
    }

    /// A shim may leave out what does not differ from the container; without this
    /// the process would keep every capability. None that the container's first process
    /// cannot have is given to another one.
    fn inherit(&self, mut spec: ProcessSpec) -> ProcessSpec {
        let ours = &self.defaults.process;
        let theirs = &mut spec.process;
        let most = ours.capabilities().clone().unwrap_or_else(no_capabilities);
        let sets = match theirs.capabilities() {
            Some(asked) => within(asked, &most),
            None => most,
        };
        theirs.set_capabilities(Some(sets));
        if theirs.rlimits().is_none() {
            theirs.set_rlimits(ours.rlimits().clone());
        }
        if ours.no_new_privileges() == Some(true) {
            theirs.set_no_new_privileges(Some(true));
        }
        spec
    }
}
