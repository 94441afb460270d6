//! What the shim notices by itself: ends of processes, of the VM, of memory.

use std::{io, sync::Arc, time::Duration};

use agent_protocol::id::ContainerId;
use containerd_shim_protos::events::task::TaskOOM;
use shim_agent_client::{AgentClient, Pace};
use shim_volumes::{self as volumes, Place};

use super::Service;
use crate::{
    container::Container,
    process::{Phase, Process, UNKNOWN_EXIT},
    sandbox::Sandbox,
};

const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
/// How long an exit may wait for the termination message.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(5);
/// How many claims of a guest that it is out of memory are passed on at once: a pod has many
/// containers, whose exits follow at once.
const OOM_BURST: u32 = 32;
/// How often they are passed on after those.
const OOM_INTERVAL: Duration = Duration::from_secs(2);

impl Service {
    /// Waits for a process to end and tells containerd.
    pub(super) async fn watch_process(
        self: Arc<Self>,
        sandbox: Arc<Sandbox>,
        container: Arc<Container>,
        process: Arc<Process>,
    ) {
        let status = if process.exec.is_none() {
            tokio::select! {
                status = process.outcome(&sandbox.agent) => status,
                never = volumes::refresh(&sandbox.agent, container.take_updated()) => match never {},
            }
        } else {
            process.outcome(&sandbox.agent).await
        };
        if process.exec.is_none()
            && let Some(place) = &container.termination_log
        {
            let message = save_message(&sandbox.agent, &container.id, place.clone());
            let _ = tokio::time::timeout(MESSAGE_DEADLINE, message).await;
        }
        self.finish(&container, &process, status);
    }

    /// Watches the pod until its VM is gone.
    pub(super) async fn watch(self: Arc<Self>, sandbox: Arc<Sandbox>) {
        let unhealthy = unhealthy(&sandbox);
        let memory = self.out_of_memory(&sandbox.agent);
        tokio::select! {
            exit = sandbox.vm.exited() => {
                tracing::info!(%exit, "vm ended");
            }
            () = unhealthy => {
                // Nobody can use it, and containerd must learn that.
                if let Err(error) = sandbox.vm.stop(Duration::ZERO).await {
                    tracing::error!(%error, "unresponsive vm not stopped");
                }
            }
            () = memory => {}
        }
        self.end_all();
    }

    /// Declares everything ended that has not ended by itself.
    pub(super) fn end_all(&self) {
        for container in self.containers.all() {
            for process in container.processes() {
                if process.exec.is_some() && process.phase() == Phase::Created {
                    continue;
                }
                self.finish(&container, &process, UNKNOWN_EXIT);
            }
        }
    }

    /// Tells containerd of containers that ran out of memory; never ends. The guest may claim
    /// it as often as it likes, and only of containers that there are.
    async fn out_of_memory(&self, agent: &AgentClient) {
        let mut pace = Pace::new(OOM_BURST, OOM_INTERVAL);
        loop {
            pace.next().await;
            let known = |id: &ContainerId| self.containers.find(id.as_str()).is_ok();
            match agent.oom_event(known).await {
                Ok(id) => {
                    tracing::warn!(container.id = %id, "container out of memory");
                    self.events.publish(&TaskOOM {
                        container_id: id.to_string(),
                        ..TaskOOM::default()
                    });
                }
                Err(error) if error.is_answer() => {
                    tracing::warn!(%error, "the guest's event is not passed on");
                }
                Err(error) => {
                    tracing::debug!(%error, "no more news of memory");
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Resolves when the agent has not answered a health check in time.
async fn unhealthy(sandbox: &Sandbox) {
    let deadline = sandbox.config.agent().health_check_request_timeout_ms;
    let deadline = Duration::from_millis(deadline);
    loop {
        tokio::time::sleep(HEALTH_INTERVAL).await;
        if let Err(error) = sandbox.agent.check(deadline).await {
            tracing::error!(%error, "agent does not answer");
            return;
        }
    }
}

async fn save_message(agent: &AgentClient, id: &str, place: Place) {
    let message = match agent.termination_log(id).await {
        Ok(message) => message,
        Err(error) => {
            tracing::debug!(%error, "no termination message");
            return;
        }
    };
    let written =
        tokio::task::spawn_blocking(move || place.write(message.as_str().as_bytes())).await;
    if let Err(error) = written.map_err(io::Error::from).flatten() {
        tracing::warn!(%error, "termination message not written");
    }
}
