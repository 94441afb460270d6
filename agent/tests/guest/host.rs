//! The host's side: a client, and containers described in few words.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use agent_protocol::rpc::{
    agent::{self, CreateContainerRequest, ReadStreamRequest, Storage},
    agent_ttrpc::AgentServiceClient,
    health_ttrpc::HealthClient,
    oci,
};
use protobuf::MessageField;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};
use ttrpc::{
    r#async::{Client, transport::Socket},
    context,
};

use crate::vm::Vm;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

pub(crate) struct Host {
    pub(crate) agent: AgentServiceClient,
    pub(crate) health: HealthClient,
    pub(crate) image: String,
    /// The file behind the guest's scratch disk, if it has one.
    pub(crate) disk: Option<PathBuf>,
    socket: PathBuf,
}

/// A context without time limit of its own; the case has one.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn call() -> context::Context {
    context::with_duration(Duration::from_secs(100))
}

impl Host {
    pub(crate) async fn connect(vm: &Vm, image: String, disk: Option<PathBuf>) -> Self {
        loop {
            let socket = vm.socket();
            if let Ok(Ok(stream)) = timeout(Duration::from_secs(1), handshake(&socket)).await {
                let client = Client::new(Socket::new(stream));
                let agent = AgentServiceClient::new(client.clone());
                return Self {
                    agent,
                    health: HealthClient::new(client),
                    image,
                    disk,
                    socket: socket.to_owned(),
                };
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Connects to the agent beside the connection there is.
    pub(crate) async fn connect_again(&self) -> Outcome<UnixStream> {
        Ok(handshake(&self.socket).await?)
    }

    /// Creates and starts a container.
    pub(crate) async fn run(&self, container: Container<'_>) -> Outcome {
        self.agent
            .create_container(call(), &container.request(&self.image))
            .await?;
        self.start(container.id).await
    }

    pub(crate) async fn start(&self, id: &str) -> Outcome {
        let request = agent::StartContainerRequest {
            container_id: id.into(),
            ..Default::default()
        };
        self.agent.start_container(call(), &request).await?;
        Ok(())
    }

    pub(crate) async fn wait(&self, id: &str, exec: &str) -> Outcome<i32> {
        let request = agent::WaitProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        Ok(self.agent.wait_process(call(), &request).await?.status)
    }

    pub(crate) async fn stdout(&self, id: &str, exec: &str) -> Outcome<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let request = read(id, exec);
            let data = self.agent.read_stdout(call(), &request).await?.data;
            if data.is_empty() {
                return Ok(all);
            }
            all.extend(data);
        }
    }

    pub(crate) async fn stderr(&self, id: &str, exec: &str) -> Outcome<Vec<u8>> {
        Ok(self.agent.read_stderr(call(), &read(id, exec)).await?.data)
    }

    pub(crate) async fn write(&self, id: &str, exec: &str, data: &[u8]) -> Outcome {
        let request = agent::WriteStreamRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            data: data.into(),
            ..Default::default()
        };
        self.agent.write_stdin(call(), &request).await?;
        Ok(())
    }

    pub(crate) async fn signal(&self, id: &str, signal: u32) -> Outcome {
        let request = agent::SignalProcessRequest {
            container_id: id.into(),
            signal,
            ..Default::default()
        };
        self.agent.signal_process(call(), &request).await?;
        Ok(())
    }

    pub(crate) async fn remove(&self, id: &str) -> Outcome {
        let request = agent::RemoveContainerRequest {
            container_id: id.into(),
            ..Default::default()
        };
        self.agent.remove_container(call(), &request).await?;
        Ok(())
    }

    pub(crate) async fn exec(&self, id: &str, exec: &str, process: oci::Process) -> Outcome {
        let request = agent::ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            process: MessageField::some(process),
            ..Default::default()
        };
        self.agent.exec_process(call(), &request).await?;
        Ok(())
    }

    /// Runs a container to its end: output and exit status.
    pub(crate) async fn finish(&self, container: Container<'_>) -> Outcome<(String, i32)> {
        let id = container.id;
        self.run(container).await?;
        let output = self.stdout(id, "").await?;
        let status = self.wait(id, id).await?;
        self.remove(id).await?;
        Ok((String::from_utf8(output)?, status))
    }
}

async fn handshake(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"CONNECT 1024\n").await?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await?);
    }
    if line.starts_with(b"OK") {
        Ok(stream)
    } else {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

fn read(id: &str, exec: &str) -> ReadStreamRequest {
    ReadStreamRequest {
        container_id: id.into(),
        exec_id: exec.into(),
        len: 1 << 20,
        ..Default::default()
    }
}

/// A container to be, in few words.
pub(crate) struct Container<'a> {
    pub(crate) id: &'a str,
    pub(crate) process: oci::Process,
    pub(crate) mounts: Vec<oci::Mount>,
    pub(crate) read_only: bool,
    pub(crate) memory: i64,
    pub(crate) pause: bool,
}

pub(crate) fn shell(script: &str) -> oci::Process {
    oci::Process {
        Args: vec!["sh".into(), "-c".into(), script.into()],
        Env: vec!["PATH=/bin".into()],
        Cwd: "/".into(),
        ..Default::default()
    }
}

impl<'a> Container<'a> {
    pub(crate) fn new(id: &'a str, script: &str) -> Self {
        Self {
            id,
            process: shell(script),
            mounts: Vec::new(),
            read_only: false,
            memory: 0,
            pause: false,
        }
    }

    pub(crate) fn request(&self, image: &str) -> CreateContainerRequest {
        let memory = oci::LinuxMemory {
            Limit: self.memory,
            ..Default::default()
        };
        let linux = oci::Linux {
            Resources: MessageField::some(oci::LinuxResources {
                Memory: MessageField::some(memory),
                ..Default::default()
            }),
            CgroupsPath: format!("/kubepods/{}", self.id),
            MaskedPaths: vec!["/proc/kcore".into()],
            ReadonlyPaths: vec!["/proc/sys".into()],
            ..Default::default()
        };
        let mut mounts = default_mounts();
        mounts.extend(self.mounts.clone());
        CreateContainerRequest {
            container_id: self.id.into(),
            exec_id: self.id.into(),
            storages: vec![Storage {
                driver: "image_guest_pull".into(),
                source: if self.pause {
                    "pause".into()
                } else {
                    image.into()
                },
                fstype: "overlay".into(),
                mount_point: format!("/run/kata-containers/{}/rootfs", self.id),
                ..Default::default()
            }],
            OCI: MessageField::some(oci::Spec {
                Version: "1.1.0".into(),
                Process: MessageField::some(self.process.clone()),
                Root: MessageField::some(oci::Root {
                    Readonly: self.read_only,
                    ..Default::default()
                }),
                Mounts: mounts,
                Linux: MessageField::some(linux),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

pub(crate) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: destination.into(),
        type_: kind.into(),
        source: source.into(),
        options: options.iter().map(|&option| option.into()).collect(),
        ..Default::default()
    }
}

fn default_mounts() -> Vec<oci::Mount> {
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
        mount(
            "/dev/shm",
            "bind",
            "/run/kata-containers/sandbox/shm",
            &["rbind"],
        ),
    ]
}
