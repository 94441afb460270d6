//! Pods and containers as values: what a scenario asks for and what it gets.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, ContainerState, DnsConfig, ExecSyncResponse,
    ImageSpec, Int64Value, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
    security_profile::ProfileType,
};

use crate::{
    bed::{Bed, Handler, wait_until},
    cri::Cri,
    images::TestImages,
};

const HANDLER_ANNOTATION: &str = "io.containerd.cri.runtime-handler";

/// A pod to be.
#[derive(Debug, Clone, Default)]
pub struct PodRequest {
    /// Annotations of the pod.
    pub annotations: HashMap<String, String>,
    /// Limits of the whole pod, as kubelet sums them.
    pub resources: Option<LinuxContainerResources>,
    /// DNS of the pod.
    pub dns: Option<DnsConfig>,
    /// Its IPC namespace is the node's.
    pub host_ipc: bool,
}

/// A container to be; the default runs nothing.
#[derive(Debug, Clone)]
pub struct ContainerRequest {
    /// Reference of the image.
    pub image: String,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Replaces the image's command.
    pub arguments: Vec<String>,
    /// Added environment.
    pub environment: Vec<(String, String)>,
    /// Working directory; empty for the image's.
    pub directory: String,
    /// Numeric user; `None` for the image's.
    pub user: Option<i64>,
    /// The root cannot be written.
    pub read_only_root: bool,
    /// Standard input is kept open for `attach`.
    pub stdin: bool,
    /// The main process gets a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxContainerResources,
    /// Capabilities beyond the default.
    pub capabilities: Vec<String>,
    /// Host paths to mount.
    pub mounts: Vec<Mount>,
    /// Everything a host would grant.
    pub privileged: bool,
    /// Annotations of the container.
    pub annotations: HashMap<String, String>,
    /// The runtime's own system call filter.
    pub seccomp: bool,
    /// The container whose processes it sees, too.
    pub target: Option<String>,
}

impl ContainerRequest {
    /// A container of the busybox image that runs `command`.
    #[must_use]
    pub fn busybox(command: &[&str]) -> Self {
        Self {
            command: words(command),
            ..Self::of_image(&TestImages::BUSYBOX.reference())
        }
    }

    /// A container of the busybox image that runs a shell script.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        Self::busybox(&["/bin/sh", "-c", script])
    }

    /// A container that runs what `image` says.
    #[must_use]
    pub fn of_image(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            command: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: String::new(),
            user: None,
            read_only_root: false,
            stdin: false,
            tty: false,
            resources: LinuxContainerResources::default(),
            capabilities: Vec::new(),
            mounts: Vec::new(),
            privileged: false,
            annotations: HashMap::new(),
            seccomp: false,
            target: None,
        }
    }

    fn config(self, name: &str, handler: Handler) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                // As kubelet: several names may lead to one image.
                user_specified_image: self.image.clone(),
                image: self.image,
                runtime_handler: handler.name().to_owned(),
                ..ImageSpec::default()
            }),
            command: self.command,
            args: self.arguments,
            working_dir: self.directory,
            envs: self
                .environment
                .into_iter()
                .map(|(key, value)| KeyValue { key, value })
                .collect(),
            mounts: self.mounts,
            annotations: self.annotations,
            log_path: format!("{name}.log"),
            stdin: self.stdin,
            stdin_once: self.stdin,
            tty: self.tty,
            linux: Some(LinuxContainerConfig {
                resources: Some(self.resources),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(match self.target {
                        None => namespaces(),
                        Some(target_id) => NamespaceOption {
                            pid: NamespaceMode::Target as i32,
                            target_id,
                            ..NamespaceOption::default()
                        },
                    }),
                    seccomp: self.seccomp.then(|| SecurityProfile {
                        profile_type: ProfileType::RuntimeDefault as i32,
                        ..SecurityProfile::default()
                    }),
                    run_as_user: self.user.map(|value| Int64Value { value }),
                    readonly_rootfs: self.read_only_root,
                    privileged: self.privileged,
                    capabilities: Some(Capability {
                        add_capabilities: self.capabilities,
                        ..Capability::default()
                    }),
                    ..LinuxContainerSecurityContext::default()
                }),
            }),
            ..ContainerConfig::default()
        }
    }
}

/// A running sandbox; dropping it stops and removes it.
#[derive(Debug)]
pub struct Pod<'bed> {
    bed: &'bed Bed,
    cri: Cri,
    config: PodSandboxConfig,
    handler: Handler,
    id: String,
}

impl<'bed> Pod<'bed> {
    /// Runs a sandbox.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn run(bed: &'bed Bed, handler: Handler, request: PodRequest) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pod-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut annotations = request.annotations;
        // containerd 1.7 learns only from here which snapshotter an image is pulled for.
        annotations.insert(HANDLER_ANNOTATION.to_owned(), handler.name().to_owned());
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                uid: format!("{name}-uid"),
                namespace: "default".to_owned(),
                attempt: 0,
                name: name.clone(),
            }),
            hostname: name.clone(),
            log_directory: format!("/run/bed/pods/{name}"),
            annotations,
            dns_config: request.dns,
            linux: Some(LinuxPodSandboxConfig {
                resources: request.resources,
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        ipc: if request.host_ipc {
                            NamespaceMode::Node as i32
                        } else {
                            NamespaceMode::Pod as i32
                        },
                        ..namespaces()
                    }),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        std::fs::create_dir_all(bed.node().path(&config.log_directory))?;
        let mut cri = bed.cri()?;
        let id = cri.run_sandbox(config.clone(), handler.name())?;
        Ok(Self {
            bed,
            cri,
            config,
            handler,
            id,
        })
    }

    /// containerd's id of the sandbox.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The pod's address.
    ///
    /// # Errors
    /// When containerd does not know it.
    pub fn address(&self) -> Result<String> {
        let status = self.cri.clone().sandbox_status(&self.id)?;
        Ok(status.network.context("a pod has an address")?.ip)
    }

    /// Is the sandbox still ready, as containerd sees it?
    ///
    /// # Errors
    /// containerd's answer.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.cri.clone().sandbox_status(&self.id)?.state == 0)
    }

    /// Pulls the image, creates a container and starts it.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn start(&self, request: ContainerRequest) -> Result<Container<'_>> {
        let container = self.create(request)?;
        container.cri().start_container(&container.id)?;
        Ok(container)
    }

    /// Pulls the image and creates a container.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn create(&self, request: ContainerRequest) -> Result<Container<'_>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("container-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut cri = self.cri.clone();
        cri.pull(
            &request.image,
            self.handler.name(),
            Some(self.config.clone()),
        )?;
        let config = request.config(&name, self.handler);
        let id = cri.create_container(&self.id, config, self.config.clone())?;
        Ok(Container {
            pod: self,
            log: format!("{}/{name}.log", self.config.log_directory),
            id,
        })
    }

    /// Runs one container to its end.
    ///
    /// # Errors
    /// containerd's answer, or when it does not end in time.
    pub fn complete(&self, request: ContainerRequest) -> Result<Exit> {
        let container = self.start(request)?;
        let exit = container.wait()?;
        container.remove()?;
        Ok(exit)
    }

    /// Stops and removes the pod, and says if that failed.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn remove(mut self) -> Result<()> {
        let id = std::mem::take(&mut self.id);
        self.cri.remove_sandbox(&id)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if !self.id.is_empty()
            && let Err(error) = self.cri.remove_sandbox(&self.id)
        {
            eprintln!("a pod cannot be removed: {error:#}");
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + n after signal n.
    pub code: i32,
    /// containerd's reason, such as `Completed` or `OOMKilled`.
    pub reason: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A container of a pod; removed with it.
#[derive(Debug)]
pub struct Container<'pod> {
    pod: &'pod Pod<'pod>,
    id: String,
    log: String,
}

/// How long containerd may take to write what an ended container said last.
const LOG_CLOSED: Duration = Duration::from_secs(30);

impl Container<'_> {
    /// containerd's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// containerd's id of its sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &str {
        &self.pod.id
    }

    /// A client of its own, for calls this type has no name for.
    #[must_use]
    pub fn cri(&self) -> Cri {
        self.pod.cri.clone()
    }

    /// Waits until the container has ended.
    ///
    /// # Errors
    /// When it runs on for two minutes.
    pub fn wait(&self) -> Result<Exit> {
        self.wait_within(Duration::from_secs(120))
    }

    /// Waits until the container has ended.
    ///
    /// # Errors
    /// When it runs on until the deadline.
    pub fn wait_within(&self, deadline: Duration) -> Result<Exit> {
        let mut last = None;
        wait_until("the container ends", deadline, || {
            let status = self.cri().container_status(&self.id)?;
            let ended = status.state == ContainerState::ContainerExited as i32;
            last = Some(status);
            Ok(ended)
        })
        .with_context(|| format!("its log: {}", self.raw_log()))?;
        let status = last.context("a container has a status")?;
        // containerd shows the end before the last line is in the file.
        wait_until("containerd closes the log", LOG_CLOSED, || {
            Ok(!self.pod.bed.node().holds_open(&self.log)?)
        })?;
        let log = self.raw_log();
        Ok(Exit {
            code: status.exit_code,
            reason: status.reason,
            stdout: stream(&log, "stdout"),
            stderr: stream(&log, "stderr"),
        })
    }

    /// Waits until standard output contains `text`.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub fn wait_for_output(&self, text: &str) -> Result<String> {
        wait_until(
            &format!("the container prints {text:?}"),
            Duration::from_secs(60),
            || Ok(stream(&self.raw_log(), "stdout").contains(text)),
        )
        .with_context(|| format!("its log: {}", self.raw_log()))?;
        Ok(stream(&self.raw_log(), "stdout"))
    }

    /// The log as containerd writes it.
    #[must_use]
    pub fn raw_log(&self) -> String {
        self.pod.bed.node().read(&self.log).unwrap_or_default()
    }

    /// Runs a command inside to its end.
    ///
    /// # Errors
    /// containerd's answer; a command that fails is not an error.
    pub fn exec(&self, command: &[&str]) -> Result<ExecSyncResponse> {
        self.cri().exec_sync(&self.id, command)
    }

    /// Runs a shell script inside and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn shell(&self, script: &str) -> Result<String> {
        let answer = self.exec(&["/bin/sh", "-c", script])?;
        if answer.exit_code != 0 {
            let stderr = String::from_utf8_lossy(&answer.stderr).into_owned();
            anyhow::bail!("`{script}` ended with {}: {stderr}", answer.exit_code);
        }
        Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
    }

    /// Stops it: its stop signal, then SIGKILL after `grace_seconds`.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn stop(&self, grace_seconds: i64) -> Result<()> {
        self.cri().stop_container(&self.id, grace_seconds)
    }

    /// Removes it.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn remove(&self) -> Result<()> {
        self.cri().remove_container(&self.id)
    }
}

/// What kubelet asks for: one network and IPC namespace per pod, processes per container.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        pid: NamespaceMode::Container as i32,
        ..NamespaceOption::default()
    }
}

/// One stream of a CRI log: `time stream P|F text`, where `P` means that the line goes on.
#[must_use]
pub fn stream(log: &str, name: &str) -> String {
    let mut text = String::new();
    for line in log.lines() {
        let mut fields = line.splitn(4, ' ').skip(1);
        let (of, tag, rest) = (
            fields.next(),
            fields.next(),
            fields.next().unwrap_or_default(),
        );
        if of == Some(name) {
            text.push_str(rest);
            if tag == Some("F") {
                text.push('\n');
            }
        }
    }
    text
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::stream;

    #[test]
    fn a_log_is_split_by_stream_and_partial_lines_are_joined() {
        let log = "t stdout P one \nt stderr F bad\nt stdout F two\n";
        assert_eq!(stream(log, "stdout"), "one two\n");
        assert_eq!(stream(log, "stderr"), "bad\n");
    }
}
