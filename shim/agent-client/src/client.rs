//! The shim's side of the agent's RPC.
//!
//! One ttrpc connection serves a pod. Calls that may last as long as a process
//! (`WaitProcess`, the streams, `GetOOMEvent`) have no deadline and end with the
//! connection; all others have one. The answers are the guest's: it may lie, which
//! can hurt nobody but its own tenant, but they are bounded by the transport.

use std::{future::Future, time::Duration};

use agent_protocol::{
    initdata::PolicyText,
    limits::STREAM_CHUNK_BYTES_MAX,
    rpc::{
        agent::{
            ARPNeighbors, AddARPNeighborsRequest, CloseStdinRequest, CopyFileRequest,
            CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest,
            ExecProcessRequest, GetDiagnosticDataRequest, GetOOMEventRequest,
            PauseContainerRequest, ReadStreamRequest, RemoveContainerRequest,
            ResumeContainerRequest, Routes, SetPolicyRequest, SignalProcessRequest,
            StartContainerRequest, StatsContainerRequest, StatsContainerResponse,
            TtyWinResizeRequest, UpdateContainerRequest, UpdateInterfaceRequest,
            UpdateRoutesRequest, WaitProcessRequest, WriteStreamRequest,
        },
        agent_ttrpc::AgentServiceClient,
        health::CheckRequest,
        health_ttrpc::HealthClient,
        oci::LinuxResources,
        types::Interface,
    },
};
use thiserror::Error;
use tokio::net::UnixStream;
use ttrpc::{
    Code,
    asynchronous::{Client, transport::Socket},
    context::{self, Context},
};

/// Deadline of calls that only do a little work in the guest.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// Why a request to the guest failed.
#[derive(Debug, Error)]
#[error("{method} failed in the guest: {}", text(source))]
pub struct AgentError {
    /// The agent's method.
    pub method: &'static str,
    /// What came back, or did not.
    pub source: ttrpc::Error,
}

fn text(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) if status.code() == Code::DEADLINE_EXCEEDED => {
            "no answer in time".to_owned()
        }
        ttrpc::Error::RpcStatus(status) => status.message.clone(),
        ttrpc::Error::RemoteClosed => "the connection to the guest is closed".to_owned(),
        other => other.to_string(),
    }
}

impl AgentError {
    /// The agent's own code, or what a lost connection comes to.
    pub fn code(&self) -> Code {
        match &self.source {
            ttrpc::Error::RpcStatus(status) => status.code(),
            _ => Code::UNAVAILABLE,
        }
    }

    /// Whether the guest says that the process or container does not exist (any more).
    pub fn is_gone(&self) -> bool {
        match &self.source {
            ttrpc::Error::RpcStatus(status) => {
                status.code() == Code::NOT_FOUND
                    || (status.code() == Code::INVALID_ARGUMENT
                        && status.message.contains("nvalid container id"))
            }
            _ => false,
        }
    }
}

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or a terminal's only output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A process in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestProcess {
    /// The container.
    pub container: String,
    /// The exec, or empty for the container's first process.
    pub exec: String,
}

/// The connection to a pod's agent; clones share it.
#[derive(Clone)]
pub struct AgentClient {
    agent: AgentServiceClient,
    health: HealthClient,
}

fn within(deadline: Duration) -> Context {
    context::with_duration(deadline)
}

fn unbounded() -> Context {
    context::with_timeout(0)
}

async fn call<T>(
    method: &'static str,
    answer: impl Future<Output = ttrpc::Result<T>>,
) -> Result<T, AgentError> {
    answer.await.map_err(|source| AgentError { method, source })
}

impl AgentClient {
    /// Speaks to the agent over an open stream.
    pub fn new(stream: UnixStream) -> Self {
        let client = Client::new(Socket::from(stream));
        Self {
            agent: AgentServiceClient::new(client.clone()),
            health: HealthClient::new(client),
        }
    }

    /// Asks whether the agent serves.
    pub async fn check(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = CheckRequest::default();
        call("Check", self.health.check(within(deadline), &request)).await?;
        Ok(())
    }

    /// Gives the guest its policy, which it takes before anything else.
    pub async fn set_policy(&self, policy: &PolicyText) -> Result<(), AgentError> {
        let request = SetPolicyRequest {
            policy: policy.as_str().to_owned(),
            ..Default::default()
        };
        let answer = self.agent.set_policy(within(CALL_DEADLINE), &request);
        call("SetPolicy", answer).await?;
        Ok(())
    }

    /// Gives the guest one of its interfaces.
    pub async fn update_interface(&self, interface: Interface) -> Result<(), AgentError> {
        let request = UpdateInterfaceRequest {
            interface: Some(interface).into(),
            ..Default::default()
        };
        let answer = self.agent.update_interface(within(CALL_DEADLINE), &request);
        call("UpdateInterface", answer).await?;
        Ok(())
    }

    /// Gives the guest its permanent neighbours.
    pub async fn add_neighbours(&self, neighbours: ARPNeighbors) -> Result<(), AgentError> {
        let request = AddARPNeighborsRequest {
            neighbors: Some(neighbours).into(),
            ..Default::default()
        };
        let answer = self
            .agent
            .add_arp_neighbors(within(CALL_DEADLINE), &request);
        call("AddARPNeighbors", answer).await?;
        Ok(())
    }

    /// Gives the guest all of its routes.
    pub async fn update_routes(&self, routes: Routes) -> Result<(), AgentError> {
        let request = UpdateRoutesRequest {
            routes: Some(routes).into(),
            ..Default::default()
        };
        let answer = self.agent.update_routes(within(CALL_DEADLINE), &request);
        call("UpdateRoutes", answer).await?;
        Ok(())
    }

    /// Makes the pod-wide namespaces and mounts.
    pub async fn create_sandbox(&self, request: &CreateSandboxRequest) -> Result<(), AgentError> {
        let answer = self.agent.create_sandbox(within(CALL_DEADLINE), request);
        call("CreateSandbox", answer).await?;
        Ok(())
    }

    /// Asks the agent to end everything.
    pub async fn destroy_sandbox(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = DestroySandboxRequest::default();
        let answer = self.agent.destroy_sandbox(within(deadline), &request);
        call("DestroySandbox", answer).await?;
        Ok(())
    }

    /// Sends a piece of a file.
    pub async fn copy_file(&self, request: &CopyFileRequest) -> Result<(), AgentError> {
        let answer = self.agent.copy_file(within(CALL_DEADLINE), request);
        call("CopyFile", answer).await?;
        Ok(())
    }

    /// Pulls the image and makes the container; the process waits to be started.
    pub async fn create_container(
        &self,
        request: &CreateContainerRequest,
        deadline: Duration,
    ) -> Result<(), AgentError> {
        let answer = self.agent.create_container(within(deadline), request);
        call("CreateContainer", answer).await?;
        Ok(())
    }

    /// Lets a container's first process run.
    pub async fn start_container(&self, id: &str) -> Result<(), AgentError> {
        let request = StartContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.start_container(within(CALL_DEADLINE), &request);
        call("StartContainer", answer).await?;
        Ok(())
    }

    /// Starts a further process.
    pub async fn exec_process(&self, request: &ExecProcessRequest) -> Result<(), AgentError> {
        let answer = self.agent.exec_process(within(CALL_DEADLINE), request);
        call("ExecProcess", answer).await?;
        Ok(())
    }

    /// Removes a container and what it mounted.
    pub async fn remove_container(&self, id: &str) -> Result<(), AgentError> {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.remove_container(within(CALL_DEADLINE), &request);
        call("RemoveContainer", answer).await?;
        Ok(())
    }

    /// Sends a signal.
    pub async fn signal(&self, process: &GuestProcess, signal: u32) -> Result<(), AgentError> {
        let request = SignalProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            signal,
            ..Default::default()
        };
        let answer = self.agent.signal_process(within(CALL_DEADLINE), &request);
        call("SignalProcess", answer).await?;
        Ok(())
    }

    /// Waits for a process to end, however long that takes.
    pub async fn wait(&self, process: &GuestProcess) -> Result<i32, AgentError> {
        let request = WaitProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..Default::default()
        };
        let answer = self.agent.wait_process(unbounded(), &request);
        Ok(call("WaitProcess", answer).await?.status)
    }

    /// Reads what a process has written; empty means that there will be no more.
    pub async fn read(
        &self,
        process: &GuestProcess,
        output: Output,
    ) -> Result<Vec<u8>, AgentError> {
        let request = ReadStreamRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            len: u32::try_from(STREAM_CHUNK_BYTES_MAX).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let response = match output {
            Output::Stdout => {
                let answer = self.agent.read_stdout(unbounded(), &request);
                call("ReadStdout", answer).await?
            }
            Output::Stderr => {
                let answer = self.agent.read_stderr(unbounded(), &request);
                call("ReadStderr", answer).await?
            }
        };
        Ok(response.data)
    }

    /// Writes to a process; answers how many bytes were taken.
    pub async fn write(&self, process: &GuestProcess, data: &[u8]) -> Result<usize, AgentError> {
        let request = WriteStreamRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            data: data.to_vec(),
            ..Default::default()
        };
        let answer = self.agent.write_stdin(unbounded(), &request);
        let taken = call("WriteStdin", answer).await?.len;
        Ok(usize::try_from(taken).unwrap_or(usize::MAX))
    }

    /// Tells a process that its input has ended.
    pub async fn close_stdin(&self, process: &GuestProcess) -> Result<(), AgentError> {
        let request = CloseStdinRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..Default::default()
        };
        let answer = self.agent.close_stdin(within(CALL_DEADLINE), &request);
        call("CloseStdin", answer).await?;
        Ok(())
    }

    /// Tells a process the size of its terminal.
    pub async fn resize(
        &self,
        process: &GuestProcess,
        row: u32,
        column: u32,
    ) -> Result<(), AgentError> {
        let request = TtyWinResizeRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            row,
            column,
            ..Default::default()
        };
        let answer = self.agent.tty_win_resize(within(CALL_DEADLINE), &request);
        call("TtyWinResize", answer).await?;
        Ok(())
    }

    /// Reads a container's cgroup.
    pub async fn stats(&self, id: &str) -> Result<StatsContainerResponse, AgentError> {
        let request = StatsContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.stats_container(within(CALL_DEADLINE), &request);
        call("StatsContainer", answer).await
    }

    /// Changes a container's limits.
    pub async fn update(&self, id: &str, resources: LinuxResources) -> Result<(), AgentError> {
        let request = UpdateContainerRequest {
            container_id: id.to_owned(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        let answer = self.agent.update_container(within(CALL_DEADLINE), &request);
        call("UpdateContainer", answer).await?;
        Ok(())
    }

    /// Freezes a container.
    pub async fn pause(&self, id: &str) -> Result<(), AgentError> {
        let request = PauseContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.pause_container(within(CALL_DEADLINE), &request);
        call("PauseContainer", answer).await?;
        Ok(())
    }

    /// Thaws a container.
    pub async fn resume(&self, id: &str) -> Result<(), AgentError> {
        let request = ResumeContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.resume_container(within(CALL_DEADLINE), &request);
        call("ResumeContainer", answer).await?;
        Ok(())
    }

    /// Reads the message that a container left in its termination log.
    pub async fn termination_log(&self, id: &str) -> Result<String, AgentError> {
        let request = GetDiagnosticDataRequest {
            log_type: "termination_log".to_owned(),
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self
            .agent
            .get_diagnostic_data(within(CALL_DEADLINE), &request);
        Ok(call("GetDiagnosticData", answer).await?.data)
    }

    /// Waits for the next container that ran out of memory.
    pub async fn oom_event(&self) -> Result<String, AgentError> {
        let request = GetOOMEventRequest::default();
        let answer = self.agent.get_oom_event(unbounded(), &request);
        Ok(call("GetOOMEvent", answer).await?.container_id)
    }
}
