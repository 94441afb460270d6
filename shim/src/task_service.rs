//! containerd's Task API: from its messages to [`Service`] and back.
//!
//! Version 3 of the API has the messages of version 2 under another service name, so
//! the same methods are registered under both, on the same socket.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    protobuf::well_known_types::any::Any,
    shim_async::{Task, create_task},
};
use serde::de::DeserializeOwned;
use shim_oci as oci;
use ttrpc::r#async::{Service as Methods, TtrpcContext};

use crate::{
    process::Phase,
    service::{CreateRequest, Service},
    stats,
    status::TaskError,
    stdio::Stdio,
};

const NAMES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// The methods under both names.
pub(crate) fn services(service: &Arc<Service>) -> HashMap<String, Methods> {
    let named = NAMES.iter().filter_map(|name| {
        let task: Arc<dyn Task + Send + Sync> = Arc::new(TaskService(Arc::clone(service)));
        let methods = create_task(task).into_values().next()?;
        Some(((*name).to_owned(), methods))
    });
    named.collect()
}

struct TaskService(Arc<Service>);

/// Decodes the JSON that containerd packs into an `Any`.
fn unpack<T: DeserializeOwned>(what: &'static str, any: Option<Any>) -> Result<T, TaskError> {
    let any = any.ok_or_else(|| TaskError::Invalid(format!("the request holds no {what}")))?;
    agent_protocol::documents::parse_json(&any.value)
        .map_err(|error| TaskError::Invalid(format!("the {what} is malformed: {error}")))
}

#[async_trait]
impl Task for TaskService {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(TaskError::Unimplemented("creating from a checkpoint").into());
        }
        let pid = self
            .0
            .create(CreateRequest {
                id: request.id,
                bundle: request.bundle,
                rootfs: request.rootfs,
                stdio: Stdio {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    terminal: request.terminal,
                },
                options: request.options.into_option(),
            })
            .await?;
        Ok(CreateTaskResponse {
            pid,
            ..CreateTaskResponse::default()
        })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let pid = self.0.start(&request.id, &request.exec_id).await?;
        Ok(StartResponse {
            pid,
            ..StartResponse::default()
        })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        let (pid, exit) = self.0.delete(&request.id, &request.exec_id).await?;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: Some(exit.at).into(),
            ..DeleteResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let container = self.0.find(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = process.ended();
        Ok(StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.clone(),
            pid: container.pid.number(),
            status: process.status().into(),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: exit.as_ref().map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at).into(),
            exec_id: request.exec_id,
            ..StateResponse::default()
        })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let process: oci::Process = unpack("process", request.spec.into_option())?;
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        self.0.exec(&request.id, &request.exec_id, stdio, process)?;
        Ok(Empty::default())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        self.0
            .kill(&request.id, &request.exec_id, request.signal)
            .await?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self.0.find(&request.id)?.process(&request.exec_id)?;
        let exit = process.wait().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(exit.at).into(),
            ..WaitResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = self.0.find(&request.id)?;
        let info = |pid| ProcessInfo {
            pid,
            ..ProcessInfo::default()
        };
        let pids = [container.pid.number(), self.0.hypervisor_pid()];
        Ok(PidsResponse {
            processes: pids.map(info).into(),
            ..PidsResponse::default()
        })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let process = self.0.find(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::default())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        let process = self.0.find(&request.id)?.process(&request.exec_id)?;
        let (row, column) = (request.height, request.width);
        if matches!(process.phase(), Phase::Created | Phase::Starting) {
            process.remember_size(row, column);
        } else if process.ended().is_none() {
            let sandbox = self.0.sandbox()?;
            let resized = sandbox.agent.resize(&process.guest, row, column).await;
            resized.map_err(TaskError::from)?;
        }
        Ok(Empty::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.0.find(&request.id)?;
        if container.init.ended().is_some() {
            // containerd passes over containers without numbers only by this code.
            return Err(TaskError::NotFound {
                what: "running container",
                id: request.id,
            }
            .into());
        }
        let stats = self.0.sandbox()?.agent.stats(&request.id).await;
        let stats = stats.map_err(TaskError::from)?;
        let metrics = stats::metrics(&stats).map_err(|error| TaskError::failed(&error))?;
        Ok(StatsResponse {
            stats: Some(metrics).into(),
            ..StatsResponse::default()
        })
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let resources = unpack("resources", request.resources.into_option())?;
        self.0.update(&request.id, resources).await?;
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        self.0.pause(&request.id).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        self.0.resume(&request.id).await?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(TaskError::Unimplemented("checkpointing a confidential guest").into())
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        let container = self.0.find(&request.id);
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: container.map_or(0, |container| container.pid.number()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.0.shut_down(request.now).await;
        Ok(Empty::default())
    }
}
