//! What a pod's shim does for each request, apart from wire formats.
//!
//! Requests for different containers never wait for each other: the only shared
//! locks guard look-ups. Making a container runs in a task of its own, so that
//! it is finished or undone even if containerd gives up and closes its connection.

mod create;
mod lifecycle;
mod resize;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_protocol::id::SandboxId;
use containerd_shim_protos::events::task::TaskExit;
use shim_hypervisor::Hypervisor;
use tokio::sync::Notify;

pub(crate) use self::create::CreateRequest;
use crate::{
    container::{Container, Containers},
    events::Events,
    process::{Exit, Process},
    record::StateDir,
    sandbox::Sandbox,
    status::TaskError,
};

const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// The shim of one pod.
pub(crate) struct Service {
    /// The pod.
    sandbox_id: SandboxId,
    /// Where the shim listens, for the record.
    socket: Option<PathBuf>,
    state: StateDir,
    events: Events,
    hypervisor: Box<dyn Hypervisor>,
    containers: Containers,
    sandbox: Mutex<Option<Arc<Sandbox>>>,
    ended: Notify,
}

impl Service {
    /// A shim without a pod yet.
    pub(crate) fn new(
        sandbox_id: SandboxId,
        socket: Option<PathBuf>,
        state: StateDir,
        events: Events,
        hypervisor: Box<dyn Hypervisor>,
    ) -> Self {
        Self {
            sandbox_id,
            state,
            socket,
            events,
            hypervisor,
            containers: Containers::default(),
            sandbox: Mutex::new(None),
            ended: Notify::new(),
        }
    }

    /// Resolves when the shim has nothing to do any more.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
        self.events.flush(FLUSH_DEADLINE).await;
    }

    /// A container that is made.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        self.containers.find(id)
    }

    /// Process id of the hypervisor; 0 if there is no VM.
    pub(crate) fn hypervisor_pid(&self) -> u32 {
        self.try_sandbox().map_or(0, |sandbox| sandbox.pid())
    }

    fn try_sandbox(&self) -> Option<Arc<Sandbox>> {
        let sandbox = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        sandbox.clone()
    }

    /// The running pod.
    pub(crate) fn sandbox(&self) -> Result<Arc<Sandbox>, TaskError> {
        self.try_sandbox().ok_or_else(|| TaskError::NotFound {
            what: "sandbox",
            id: self.sandbox_id.to_string(),
        })
    }

    fn set_sandbox(&self, sandbox: Option<Arc<Sandbox>>) {
        *self.sandbox.lock().unwrap_or_else(PoisonError::into_inner) = sandbox;
    }

    /// Ends the pod's VM and all that belongs to it.
    async fn stop_sandbox(&self) {
        let sandbox = self
            .sandbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(sandbox) = sandbox {
            sandbox.stop().await;
        }
    }

    /// Decides the end of a process and tells containerd, if nobody has before.
    fn finish(&self, container: &Container, process: &Process, status: u32) -> Option<Exit> {
        let exit = process.finish(status)?;
        let (id, exec) = (&container.id, &process.guest.exec);
        self.events.publish(&TaskExit {
            container_id: id.clone(),
            id: if exec.is_empty() { id } else { exec }.to_owned(),
            pid: container.pid.number(),
            exit_status: exit.status,
            exited_at: Some(exit.at.clone()).into(),
            ..TaskExit::default()
        });
        Some(exit)
    }

    /// Ends the shim, unless a container remains.
    pub(crate) async fn shut_down(&self, now: bool) {
        if !now && !self.containers.all().is_empty() {
            return;
        }
        self.containers.cancel(None).await;
        self.stop_sandbox().await;
        self.ended.notify_one();
    }
}
