//! Starting, signalling and deleting processes.

use std::sync::Arc;

use agent_protocol::{id::ExecId, rpc::agent::ExecProcessRequest};
use containerd_shim_protos::{
    events::task::{
        TaskDelete, TaskExecAdded, TaskExecStarted, TaskPaused, TaskResumed, TaskStart,
    },
    protobuf::well_known_types::timestamp::Timestamp,
};
use shim_agent_client::GuestProcess;
use shim_oci as oci;

use super::Service;
use crate::{
    container::Container,
    process::{Exit, KILLED_EXIT, Phase, Process},
    sandbox::Sandbox,
    spec,
    status::TaskError,
    stdio::{OpenStdio, Stdio},
    timing::Step,
};

/// Signals that end a process which has not run yet.
const ENDING: [i32; 2] = [libc::SIGKILL, libc::SIGTERM];

impl Service {
    /// Starts a container's first process, or a further one.
    pub(crate) async fn start(self: &Arc<Self>, id: &str, exec: &str) -> Result<u32, TaskError> {
        let container = self.find(id)?;
        let process = container.process(exec)?;
        let sandbox = self.sandbox()?;
        if !process.move_on(Phase::Created, Phase::Starting) {
            return Err(process.precondition("only a created process can be started"));
        }
        let service = Arc::clone(self);
        let starting = async move {
            let pid = container.pid.number();
            let started = service.run(&container, &process, &sandbox).await;
            if started.is_err() {
                process.move_on(Phase::Starting, Phase::Created);
            }
            started.map(|()| pid)
        };
        tokio::spawn(starting)
            .await
            .unwrap_or_else(|error| Err(TaskError::failed(&error)))
    }

    async fn run(
        self: &Arc<Self>,
        container: &Arc<Container>,
        process: &Arc<Process>,
        sandbox: &Arc<Sandbox>,
    ) -> Result<(), TaskError> {
        let mut streams = OpenStdio::open(&process.stdio, process.stdin_closed())
            .await
            .map_err(|error| TaskError::failed(&error))?;
        match &process.exec {
            None => sandbox.agent.start_container(&container.id).await?,
            Some(exec) => {
                let request = ExecProcessRequest {
                    container_id: container.id.clone(),
                    exec_id: process.guest.exec.clone(),
                    process: Some(spec::process(exec)).into(),
                    ..ExecProcessRequest::default()
                };
                sandbox.agent.exec_process(&request).await?;
            }
        }
        let keeper = streams.keeper.take();
        process.attach(keeper, streams.start(&sandbox.agent, &process.guest));
        if !process.move_on(Phase::Starting, Phase::Running) {
            return Err(process.precondition("it ended while it was started"));
        }
        self.announce(container, process, sandbox);
        if let Some((row, column)) = process.take_size()
            && let Err(error) = sandbox.agent.resize(&process.guest, row, column).await
        {
            tracing::debug!(%error, "terminal not resized");
        }
        let service = Arc::clone(self);
        let (container, process) = (Arc::clone(container), Arc::clone(process));
        tokio::spawn(service.watch_process(Arc::clone(sandbox), container, process));
        Ok(())
    }

    fn announce(&self, container: &Container, process: &Process, sandbox: &Sandbox) {
        if process.exec.is_none() {
            sandbox
                .timing
                .done(&sandbox.state, Step::ContainerRunning(&container.id));
            self.events.publish(&TaskStart {
                container_id: container.id.clone(),
                pid: container.pid.number(),
                ..TaskStart::default()
            });
        } else {
            self.events.publish(&TaskExecStarted {
                container_id: container.id.clone(),
                exec_id: process.guest.exec.clone(),
                pid: container.pid.number(),
                ..TaskExecStarted::default()
            });
        }
    }

    /// Prepares a further process.
    pub(crate) fn exec(
        &self,
        id: &str,
        exec: &str,
        stdio: Stdio,
        mut process: oci::Process,
    ) -> Result<(), TaskError> {
        let container = self.find(id)?;
        ExecId::parse(exec)
            .map_err(|error| TaskError::Invalid(format!("exec id {exec:?} is invalid: {error}")))?;
        stdio.check().map_err(|error| TaskError::invalid(&error))?;
        let init = &container.init;
        if init.ended().is_some() || matches!(init.phase(), Phase::Created | Phase::Deleting) {
            return Err(init.precondition("only a running container can execute something"));
        }
        process.terminal = stdio.terminal;
        let words = container.users.put(&mut process.user);
        words.map_err(|error| TaskError::invalid(&error))?;
        let guest = GuestProcess {
            container: container.id.clone(),
            exec: exec.to_owned(),
        };
        container.add_exec(exec, Process::new(guest, stdio, Some(process)))?;
        self.events.publish(&TaskExecAdded {
            container_id: container.id.clone(),
            exec_id: exec.to_owned(),
            ..TaskExecAdded::default()
        });
        Ok(())
    }

    /// Sends a signal. A process that has ended is left alone, and that is success.
    pub(crate) async fn kill(&self, id: &str, exec: &str, signal: u32) -> Result<(), TaskError> {
        let container = self.find(id)?;
        let process = container.process(exec)?;
        if process.ended().is_some() {
            return Ok(());
        }
        let ends = i32::try_from(signal).is_ok_and(|signal| ENDING.contains(&signal));
        if process.phase() == Phase::Created {
            if !ends {
                return Err(
                    process.precondition("a created process takes only SIGKILL and SIGTERM")
                );
            }
            if process.exec.is_none()
                && let Err(error) = self.sandbox()?.agent.signal(&process.guest, signal).await
            {
                tracing::debug!(%error, "created process not signalled");
            }
            self.finish(&container, &process, 128_u32.saturating_add(signal));
            return Ok(());
        }
        match self.sandbox()?.agent.signal(&process.guest, signal).await {
            Err(error) if !error.is_gone() && process.ended().is_none() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Forgets a process that has ended; a container's last trace goes with it.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        id: &str,
        exec: &str,
    ) -> Result<(u32, Exit), TaskError> {
        if exec.is_empty() && self.find(id).is_err() {
            // containerd gave up on a creation that is still under way.
            self.containers.cancel(Some(id)).await;
        }
        let container = self.find(id)?;
        let process = container.process(exec)?;
        let before = process.begin_delete()?;
        let pid = container.pid.number();
        let exit = process.ended().unwrap_or_else(|| Exit {
            status: KILLED_EXIT,
            at: Timestamp::now(),
        });
        if !exec.is_empty() {
            container.remove_exec(exec);
            return Ok((pid, exit));
        }
        let service = Arc::clone(self);
        let removing = async move {
            let removed = service.remove(&container).await;
            match removed {
                Ok(()) => service.forget(&container, pid, &exit),
                Err(_) => process.abort_delete(before),
            }
            removed.map(|()| (pid, exit))
        };
        tokio::spawn(removing)
            .await
            .unwrap_or_else(|error| Err(TaskError::failed(&error)))
    }

    async fn remove(&self, container: &Container) -> Result<(), TaskError> {
        if container.role.owns_sandbox() {
            self.end_all();
            self.stop_sandbox().await;
            return Ok(());
        }
        let Some(sandbox) = self.try_sandbox() else {
            return Ok(());
        };
        match sandbox.agent.remove_container(&container.id).await {
            // A container without a VM needs no removing.
            Err(error) if !error.is_gone() && error.code() != ttrpc::Code::UNAVAILABLE => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    fn forget(&self, container: &Container, pid: u32, exit: &Exit) {
        self.containers.remove(&container.id);
        self.events.publish(&TaskDelete {
            container_id: container.id.clone(),
            id: container.id.clone(),
            pid,
            exit_status: exit.status,
            exited_at: Some(exit.at.clone()).into(),
            ..TaskDelete::default()
        });
    }

    /// Freezes a container.
    pub(crate) async fn pause(&self, id: &str) -> Result<(), TaskError> {
        let container = self.find(id)?;
        if !container.init.move_on(Phase::Running, Phase::Paused) {
            return Err(container
                .init
                .precondition("only a running container can be paused"));
        }
        if let Err(error) = self.sandbox()?.agent.pause(id).await {
            container.init.move_on(Phase::Paused, Phase::Running);
            return Err(error.into());
        }
        self.events.publish(&TaskPaused {
            container_id: id.to_owned(),
            ..TaskPaused::default()
        });
        Ok(())
    }

    /// Thaws a container.
    pub(crate) async fn resume(&self, id: &str) -> Result<(), TaskError> {
        let container = self.find(id)?;
        if container.init.phase() != Phase::Paused {
            return Err(container
                .init
                .precondition("only a paused container can be resumed"));
        }
        self.sandbox()?.agent.resume(id).await?;
        container.init.move_on(Phase::Paused, Phase::Running);
        self.events.publish(&TaskResumed {
            container_id: id.to_owned(),
            ..TaskResumed::default()
        });
        Ok(())
    }
}
