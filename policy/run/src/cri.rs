//! The container runtime, by its CRI: each call with a deadline and a sentence.

use std::{io, time::Duration};

use k8s_cri::v1::{
    AuthConfig, ContainerConfig, ContainerStatus, ContainerStatusRequest, CreateContainerRequest,
    Image, ImageSpec, ImageStatusRequest, ListPodSandboxRequest, PodSandboxConfig,
    PodSandboxFilter, PodSandboxStatusRequest, PullImageRequest, RemoveContainerRequest,
    RemovePodSandboxRequest, ReopenContainerLogRequest, RunPodSandboxRequest,
    StartContainerRequest, StatusRequest, StopContainerRequest, StopPodSandboxRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};

/// For calls that only look something up.
const LOOK: Duration = Duration::from_secs(10);

/// For calls that end something; the VM is killed long before.
const END: Duration = Duration::from_secs(120);

/// The largest answer: containerd's configuration in `Status` comes to some tens of KiB.
const MOST_BYTES: usize = 16 << 20;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CriError {
    #[error("{0} is not the address of a socket: write unix:///path")]
    Address(String),
    #[error(
        "cannot reach a container runtime at {address}: is containerd running there, and may this user use it?"
    )]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{endpoint} does not speak CRI v1: is containerd's CRI plug-in on?")]
    NoCri { endpoint: String },
    #[error("the runtime cannot {step}: {message}")]
    Call { step: String, message: String },
    #[error("the runtime did not {step} in {seconds} s")]
    Deadline { step: String, seconds: u64 },
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
    start: Duration,
}

impl Cri {
    /// Connects; `start` bounds each call that pulls or boots.
    pub(crate) async fn connect(address: &str, start: Duration) -> Result<Self, CriError> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        if !path.starts_with('/') {
            return Err(CriError::Address(address.to_owned()));
        }
        // Told apart here: the transport's own error does not say why.
        std::os::unix::net::UnixStream::connect(path).map_err(|source| CriError::Connect {
            address: address.to_owned(),
            source,
        })?;
        let endpoint = Endpoint::from_shared(format!("unix://{path}"))
            .map_err(|_| CriError::Address(address.to_owned()))?;
        let channel = endpoint
            .connect_timeout(LOOK)
            .connect()
            .await
            .map_err(|error| CriError::Connect {
                address: address.to_owned(),
                source: io::Error::other(error),
            })?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MOST_BYTES),
            image: ImageServiceClient::new(channel).max_decoding_message_size(MOST_BYTES),
            start,
        })
    }

    /// The names of the runtime handlers, sorted.
    pub(crate) async fn handlers(&mut self, address: &str) -> Result<Vec<String>, CriError> {
        let request = timed(StatusRequest { verbose: true }, LOOK);
        let answer = self.runtime.status(request).await;
        if answer
            .as_ref()
            .is_err_and(|s| s.code() == Code::Unimplemented)
        {
            let endpoint = address.to_owned();
            return Err(CriError::NoCri { endpoint });
        }
        let status = done("say its status", LOOK, answer)?;
        let mut names: Vec<String> = status
            .runtime_handlers
            .into_iter()
            .map(|handler| handler.name)
            .filter(|name| !name.is_empty())
            .collect();
        if names.is_empty() {
            // containerd 1.7 says it in its configuration only.
            names = configured_handlers(status.info.get("config").map_or("", String::as_str));
        }
        names.sort();
        Ok(names)
    }

    /// What the runtime knows of an image, if it has it.
    pub(crate) async fn image_status(
        &mut self,
        image: &ImageSpec,
    ) -> Result<Option<Image>, CriError> {
        let request = ImageStatusRequest {
            image: Some(image.clone()),
            verbose: false,
        };
        let answer = self.image.image_status(timed(request, LOOK)).await;
        Ok(done(&format!("look for image {}", image.image), LOOK, answer)?.image)
    }

    pub(crate) async fn pull(
        &mut self,
        image: &ImageSpec,
        auth: Option<AuthConfig>,
        sandbox: &PodSandboxConfig,
    ) -> Result<(), CriError> {
        let request = PullImageRequest {
            image: Some(image.clone()),
            auth,
            sandbox_config: Some(sandbox.clone()),
        };
        let answer = self.image.pull_image(timed(request, self.start)).await;
        done(&format!("pull image {}", image.image), self.start, answer)?;
        Ok(())
    }

    pub(crate) async fn run_sandbox(
        &mut self,
        sandbox: &PodSandboxConfig,
        handler: &str,
    ) -> Result<String, CriError> {
        let request = RunPodSandboxRequest {
            config: Some(sandbox.clone()),
            runtime_handler: handler.to_owned(),
        };
        let answer = self
            .runtime
            .run_pod_sandbox(timed(request, self.start))
            .await;
        Ok(done("start the pod", self.start, answer)?.pod_sandbox_id)
    }

    /// The pod's addresses.
    pub(crate) async fn addresses(&mut self, sandbox: &str) -> Result<Vec<String>, CriError> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.to_owned(),
            verbose: false,
        };
        let answer = self.runtime.pod_sandbox_status(timed(request, LOOK)).await;
        let status = done("say the pod's address", LOOK, answer)?.status;
        let network = status.and_then(|s| s.network).unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        let all = std::iter::once(network.ip).chain(more);
        Ok(all.filter(|ip| !ip.is_empty()).collect())
    }

    pub(crate) async fn create(
        &mut self,
        sandbox: &str,
        container: ContainerConfig,
        config: &PodSandboxConfig,
    ) -> Result<String, CriError> {
        let name = container.metadata.clone().unwrap_or_default().name;
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(container),
            sandbox_config: Some(config.clone()),
        };
        let answer = self
            .runtime
            .create_container(timed(request, self.start))
            .await;
        let step = format!("create container {name}");
        Ok(done(&step, self.start, answer)?.container_id)
    }

    pub(crate) async fn start(&mut self, id: &str, name: &str) -> Result<(), CriError> {
        let container_id = id.to_owned();
        let request = timed(StartContainerRequest { container_id }, self.start);
        let answer = self.runtime.start_container(request).await;
        done(&format!("start container {name}"), self.start, answer)?;
        Ok(())
    }

    pub(crate) async fn status(
        &mut self,
        id: &str,
        name: &str,
    ) -> Result<ContainerStatus, CriError> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let answer = self.runtime.container_status(timed(request, LOOK)).await;
        let status = done(&format!("say how container {name} is"), LOOK, answer)?.status;
        Ok(status.unwrap_or_default())
    }

    /// Lets the runtime begin a new log file.
    pub(crate) async fn reopen_log(&mut self, id: &str, name: &str) -> Result<(), CriError> {
        let container_id = id.to_owned();
        let request = timed(ReopenContainerLogRequest { container_id }, LOOK);
        let answer = self.runtime.reopen_container_log(request).await;
        done(&format!("reopen the log of container {name}"), LOOK, answer)?;
        Ok(())
    }

    /// The sandboxes of the pod with this uid, whatever their state.
    pub(crate) async fn sandboxes(&mut self, uid: &str) -> Result<Vec<String>, CriError> {
        let label = ("io.kubernetes.pod.uid".to_owned(), uid.to_owned());
        let filter = PodSandboxFilter {
            label_selector: [label].into(),
            ..PodSandboxFilter::default()
        };
        let request = ListPodSandboxRequest {
            filter: Some(filter),
        };
        let answer = self.runtime.list_pod_sandbox(timed(request, LOOK)).await;
        let found = done("list its pods", LOOK, answer)?.items;
        Ok(found.into_iter().map(|sandbox| sandbox.id).collect())
    }

    /// SIGTERM, and SIGKILL after the grace period.
    pub(crate) async fn stop(&mut self, id: &str, grace: Duration) -> Result<(), CriError> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        let limit = grace + END;
        let answer = self.runtime.stop_container(timed(request, limit)).await;
        done("stop a container", limit, answer)?;
        Ok(())
    }

    pub(crate) async fn remove_container(&mut self, id: &str) -> Result<(), CriError> {
        let container_id = id.to_owned();
        let request = timed(RemoveContainerRequest { container_id }, END);
        let answer = self.runtime.remove_container(request).await;
        done("remove a container", END, answer)?;
        Ok(())
    }

    /// Stops and removes the pod and everything in it.
    pub(crate) async fn remove_sandbox(&mut self, sandbox: &str) -> Result<(), CriError> {
        let pod_sandbox_id = sandbox.to_owned();
        let request = timed(StopPodSandboxRequest { pod_sandbox_id }, END);
        let answer = self.runtime.stop_pod_sandbox(request).await;
        done("stop the pod", END, answer)?;
        let pod_sandbox_id = sandbox.to_owned();
        let request = timed(RemovePodSandboxRequest { pod_sandbox_id }, END);
        let answer = self.runtime.remove_pod_sandbox(request).await;
        done("remove the pod", END, answer)?;
        Ok(())
    }
}

fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn done<T>(
    step: &str,
    limit: Duration,
    answer: Result<Response<T>, Status>,
) -> Result<T, CriError> {
    answer.map(Response::into_inner).map_err(|status| {
        let step = step.to_owned();
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => CriError::Deadline {
                step,
                seconds: limit.as_secs(),
            },
            _ => CriError::Call {
                step,
                message: status.message().to_owned(),
            },
        }
    })
}

/// The keys of `containerd.runtimes` in containerd's description of itself.
fn configured_handlers(config: &str) -> Vec<String> {
    let config: serde_json::Value =
        agent_documents::parse_json(config.as_bytes()).unwrap_or_default();
    config
        .pointer("/containerd/runtimes")
        .and_then(serde_json::Value::as_object)
        .map(|runtimes| runtimes.keys().cloned().collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_found_in_the_configuration_of_older_daemons() {
        let config = r#"{"containerd":{"runtimes":{"runc":{},"kata-cc":{}}}}"#;
        assert_eq!(configured_handlers(config), ["kata-cc", "runc"]);
        assert!(configured_handlers("").is_empty());
        assert!(configured_handlers("{}").is_empty());
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_is_one_sentence() {
        for (address, expected) in [
            ("run/x.sock", "run/x.sock is not the address of a socket"),
            ("tcp://1.2.3.4:5", "tcp://1.2.3.4:5 is not the address"),
            (
                "unix:///nowhere.sock",
                "cannot reach a container runtime at unix:///nowhere.sock",
            ),
        ] {
            let error = Cri::connect(address, LOOK).await.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
