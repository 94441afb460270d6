//! What the shim notices by itself: ends of processes, of the VM, of memory.

use std::{io, sync::Arc, time::Duration};

use containerd_shim_protos::events::task::TaskOOM;
use shim_agent_client::AgentClient;
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
/// What Kubernetes shows of a termination message.
const MESSAGE_BYTES_MAX: usize = 4096;

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
        self.finish(&container.id, &process, status);
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
                self.finish(&container.id, &process, UNKNOWN_EXIT);
            }
        }
    }

    /// Tells containerd of containers that ran out of memory; never ends.
    async fn out_of_memory(&self, agent: &AgentClient) {
        loop {
            match agent.oom_event().await {
                Ok(id) => {
                    tracing::warn!(container.id = id, "container out of memory");
                    self.events.publish(&TaskOOM {
                        container_id: id,
                        ..TaskOOM::default()
                    });
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
    let bytes = message.as_bytes();
    let bytes = bytes.get(..MESSAGE_BYTES_MAX).unwrap_or(bytes).to_vec();
    let written = tokio::task::spawn_blocking(move || place.write(&bytes)).await;
    if let Err(error) = written.map_err(io::Error::from).flatten() {
        tracing::warn!(%error, "termination message not written");
    }
}
