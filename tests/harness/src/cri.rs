//! containerd as kubelet sees it: the CRI services over its socket, with deadlines.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    AuthConfig, ContainerConfig, ContainerStats, ContainerStatsRequest, ContainerStatus,
    ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    ListContainersRequest, ListPodSandboxRequest, PodSandboxConfig, PodSandboxStatus,
    PodSandboxStatusRequest, PullImageRequest, RemoveContainerRequest, RemoveImageRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StatusRequest,
    StopContainerRequest, StopPodSandboxRequest, UpdateContainerResourcesRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use tokio::net::UnixStream;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::{bytes::Bytes, run::executor};

/// Longer than any call may take on a slow machine that emulates its processors.
const DEADLINE: Duration = Duration::from_secs(400);

/// A connection to containerd.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
}

/// Waits for one call; a `tonic` error becomes containerd's sentence.
macro_rules! call {
    ($client:expr, $method:ident, $request:expr) => {
        wait(stringify!($method), $client.$method($request))
    };
}

impl Cri {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// When nothing listens there.
    pub fn connect(path: &Path) -> Result<Self> {
        let path = PathBuf::from(path);
        let channel = executor().block_on(async move {
            Endpoint::try_from("http://containerd.socket")?
                .connect_with_connector(tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                }))
                .await
        })?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            image: ImageServiceClient::new(channel.clone()),
            channel,
        })
    }

    /// Sends a request in protobuf's bytes to `method`, such as `RuntimeService/StopContainer`,
    /// and returns those of the answer: for what this client's types do not know.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn call(&self, method: &str, request: Vec<u8>) -> Result<Vec<u8>> {
        let path = format!("/runtime.v1.{method}").parse()?;
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        wait(method, async move {
            let ready = client.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            client
                .unary(tonic::Request::new(request), path, Bytes)
                .await
        })
    }

    /// Are containerd's runtime and network both ready?
    #[must_use]
    pub fn is_ready(&mut self) -> bool {
        let status = call!(self.runtime, status, StatusRequest { verbose: false });
        status
            .ok()
            .and_then(|answer| answer.status)
            .is_some_and(|status| {
                status
                    .conditions
                    .iter()
                    .all(|one| one.status || !is_needed(&one.r#type))
            })
    }

    /// Pulls an image for the runtime handler `handler`; returns its id.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn pull(
        &mut self,
        image: &str,
        handler: &str,
        sandbox: Option<PodSandboxConfig>,
    ) -> Result<String> {
        let request = PullImageRequest {
            image: Some(image_spec(image, handler)),
            auth: None::<AuthConfig>,
            sandbox_config: sandbox,
        };
        Ok(call!(self.image, pull_image, request)?.image_ref)
    }

    /// Removes an image.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn remove_image(&mut self, image: &str) -> Result<()> {
        let request = RemoveImageRequest {
            image: Some(image_spec(image, "")),
        };
        call!(self.image, remove_image, request).map(drop)
    }

    /// Runs a sandbox; returns its id.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn run_sandbox(&mut self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: handler.to_owned(),
        };
        Ok(call!(self.runtime, run_pod_sandbox, request)?.pod_sandbox_id)
    }

    /// A sandbox's state and addresses.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn sandbox_status(&mut self, id: &str) -> Result<PodSandboxStatus> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        call!(self.runtime, pod_sandbox_status, request)?
            .status
            .context("a sandbox has a status")
    }

    /// Stops and removes a sandbox.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn remove_sandbox(&mut self, id: &str) -> Result<()> {
        let pod_sandbox_id = id.to_owned();
        call!(
            self.runtime,
            stop_pod_sandbox,
            StopPodSandboxRequest { pod_sandbox_id }
        )?;
        let pod_sandbox_id = id.to_owned();
        call!(
            self.runtime,
            remove_pod_sandbox,
            RemovePodSandboxRequest { pod_sandbox_id }
        )
        .map(drop)
    }

    /// The ids of all sandboxes.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn sandboxes(&mut self) -> Result<Vec<String>> {
        let request = ListPodSandboxRequest { filter: None };
        let items = call!(self.runtime, list_pod_sandbox, request)?.items;
        Ok(items.into_iter().map(|one| one.id).collect())
    }

    /// The ids of all containers.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn containers(&mut self) -> Result<Vec<String>> {
        let request = ListContainersRequest { filter: None };
        let containers = call!(self.runtime, list_containers, request)?.containers;
        Ok(containers.into_iter().map(|one| one.id).collect())
    }

    /// Creates a container; returns its id.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn create_container(
        &mut self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime, create_container, request)?.container_id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn start_container(&mut self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        call!(
            self.runtime,
            start_container,
            StartContainerRequest { container_id }
        )
        .map(drop)
    }

    /// Stops a container: its stop signal, then SIGKILL after `grace_seconds`.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn stop_container(&mut self, id: &str, grace_seconds: i64) -> Result<()> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace_seconds,
        };
        call!(self.runtime, stop_container, request).map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn remove_container(&mut self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        call!(
            self.runtime,
            remove_container,
            RemoveContainerRequest { container_id }
        )
        .map(drop)
    }

    /// A container's state.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn container_status(&mut self, id: &str) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        call!(self.runtime, container_status, request)?
            .status
            .context("a container has a status")
    }

    /// A container's use of processor and memory.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn container_stats(&mut self, id: &str) -> Result<ContainerStats> {
        let container_id = id.to_owned();
        call!(
            self.runtime,
            container_stats,
            ContainerStatsRequest { container_id }
        )?
        .stats
        .context("a running container has stats")
    }

    /// Runs a command in a container to its end.
    ///
    /// # Errors
    /// containerd's answer; a command that fails is not an error.
    pub fn exec_sync(&mut self, id: &str, command: &[&str]) -> Result<ExecSyncResponse> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: 0,
        };
        call!(self.runtime, exec_sync, request)
    }

    /// Changes a container's limits.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn update_container(&mut self, request: UpdateContainerResourcesRequest) -> Result<()> {
        call!(self.runtime, update_container_resources, request).map(drop)
    }
}

fn is_needed(condition: &str) -> bool {
    matches!(condition, "RuntimeReady" | "NetworkReady")
}

fn image_spec(image: &str, handler: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        runtime_handler: handler.to_owned(),
        ..ImageSpec::default()
    }
}

fn wait<T>(method: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
    let answer = executor()
        .block_on(async { tokio::time::timeout(DEADLINE, call).await })
        .with_context(|| format!("{method} took longer than {DEADLINE:?}"))?;
    match answer {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(anyhow::anyhow!("{method}: {}", status.message())),
    }
}
