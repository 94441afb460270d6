//! A node with its registry, containerd and, if asked for, our runtime.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    authority::Authority,
    containerd::{Containerd, registry_hosts},
    cri::Cri,
    guest,
    images::TestImages,
    network,
    node::Node,
    registry::{REGISTRY, Registry},
    run::{Ran, run, run_ok},
    tools::{Prefix, built},
};

const CONFIG: &str = "/run/bed/containerd.toml";
const CONTAINERD_LOG: &str = "/run/bed/containerd.log";
const SNAPSHOTTER_LOG: &str = "/run/bed/snapshotter.log";
const KATA_CONFIG: &str = "/run/bed/kata-cc/configuration.toml";
const KATA_DROP_IN: &str = "/run/bed/kata-cc/config.d/10-bed.toml";
/// Ten pods at once fit a small machine, and may boot slowly on one that emulates them.
const SMALL_PODS: &str = "[hypervisor.qemu]\ndefault_memory = 512\nenable_annotations = [\"cc_init_data\", \"scratch_disk_mib\", \
     \"runtime.emptydir_size_limits\", \"agent.policy\"]\n\
     [agent.kata]\nreconnect_timeout_ms = 300000\n";
/// containerd's socket inside the bed, where every client expects it.
const SOCKET: &str = "/run/containerd/containerd.sock";
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A CRI runtime handler of the bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// The baseline: containers on the node.
    Runc,
    /// This product: a VM per pod.
    KataCc,
}

impl Handler {
    /// The handler's name in containerd's configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::KataCc => "kata-cc",
        }
    }
}

/// What a bed is made of.
#[derive(Debug, Clone)]
pub struct BedOptions {
    /// The containerd to run.
    pub containerd: Containerd,
    /// Our runtime; without it the bed has only runc.
    pub prefix: Option<Prefix>,
    /// The bed stays when the caller ends.
    pub detached: bool,
}

/// A running bed; dropping it takes it away.
#[derive(Debug)]
pub struct Bed {
    // Dropped first: servers must not outlive their namespaces as zombies of ours.
    servers: Mutex<Vec<Child>>,
    registry: Registry,
    containerd: Containerd,
    prefix: Option<Prefix>,
    node: Node,
}

impl Bed {
    /// Makes the bed and waits until containerd answers.
    ///
    /// # Errors
    /// When a part does not come up; the message holds the end of its log.
    pub fn up(options: BedOptions) -> Result<Self> {
        let node = if options.detached {
            Node::up_detached()?
        } else {
            Node::up()?
        };
        let authority = Authority::open()?;
        let registry = Registry::start(&node, &authority)?;
        TestImages::push(&node, &registry)?;
        node.write("/run/bed/cni/10-bed.conflist", network::cni())?;
        node.write(
            format!("/run/bed/certs.d/{REGISTRY}/hosts.toml"),
            registry_hosts(),
        )?;
        let bed = Self {
            servers: Mutex::new(Vec::new()),
            registry,
            containerd: options.containerd,
            prefix: options.prefix,
            node,
        };
        bed.install(&authority)?;
        bed.start_containerd()?;
        Ok(bed)
    }

    /// Points the bed at our runtime and starts its snapshotter.
    fn install(&self, authority: &Authority) -> Result<()> {
        let Some(prefix) = self.prefix.clone() else {
            return self.node.write(CONFIG, self.containerd.config());
        };
        let guest = guest::trusting(authority, &built("kata-agent")?)?;
        let config = prefix.configuration_for(&guest)?;
        self.node.write(KATA_CONFIG, config)?;
        self.node.write(KATA_DROP_IN, SMALL_PODS)?;
        self.node.write(CONFIG, self.containerd.config())?;
        let mut configure = self.node.command(prefix.bin("kata-cc-node"));
        configure
            .args(["containerd", "--config", CONFIG])
            .args(["--configuration", KATA_CONFIG, "--prefix"])
            .arg(prefix.path())
            .arg("--containerd")
            .arg(self.containerd.program("containerd"));
        run_ok(configure, START_DEADLINE)?;
        self.start_snapshotter()
    }

    /// Starts the snapshotter and waits for its socket.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start_snapshotter(&self) -> Result<()> {
        let prefix = self
            .prefix
            .as_ref()
            .context("this bed has no snapshotter")?;
        let command = self.node.command(prefix.bin("kata-cc-snapshotter"));
        self.serve(command, SNAPSHOTTER_LOG)?;
        let socket = self.node.path("/run/kata-cc/snapshotter.sock");
        wait_until("the snapshotter listens", START_DEADLINE, || {
            Ok(UnixStream::connect(&socket).is_ok())
        })
        .with_context(|| self.tail(SNAPSHOTTER_LOG))
    }

    fn start_containerd(&self) -> Result<()> {
        let mut command = self.node.command(self.containerd.program("containerd"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(["--config", CONFIG]).env(
            "PATH",
            format!(
                "{}:{path}:/usr/sbin:/sbin",
                self.containerd.directory.display()
            ),
        );
        self.serve(command, CONTAINERD_LOG)?;
        wait_until("containerd answers", START_DEADLINE, || {
            Ok(self.cri().is_ok_and(|mut cri| cri.is_ready()))
        })
        .with_context(|| self.tail(CONTAINERD_LOG))
    }

    fn serve(&self, command: Command, log: &str) -> Result<()> {
        let server = self.node.serve(command, log)?;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.push(server);
        Ok(())
    }

    /// A client of containerd's CRI service.
    ///
    /// # Errors
    /// When the socket does not accept.
    pub fn cri(&self) -> Result<Cri> {
        Cri::connect(&self.node.path(SOCKET))
    }

    /// The namespaces.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Which containerd runs here.
    #[must_use]
    pub fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Our runtime, if the bed has it.
    #[must_use]
    pub fn prefix(&self) -> Option<&Prefix> {
        self.prefix.as_ref()
    }

    /// A command that runs `program` inside the bed.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.node.command(program)
    }

    /// Runs `ctr` in Kubernetes' namespace.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub fn ctr(&self, arguments: &[&str], deadline: Duration) -> Result<Ran> {
        let mut command = self.ctr_command();
        command.args(arguments);
        run(command, deadline)
    }

    /// A `ctr` to be given arguments and pipes.
    #[must_use]
    pub fn ctr_command(&self) -> Command {
        let mut command = self.node.command(self.containerd.program("ctr"));
        command.args(["--namespace", "k8s.io"]);
        command
    }

    /// The last lines of a log of the bed, for a message about a failure.
    #[must_use]
    pub fn tail(&self, log: &str) -> String {
        let text = self.node.read(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        format!(
            "{log} ends:\n{}",
            lines.get(from..).unwrap_or_default().join("\n")
        )
    }

    /// containerd's log so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn containerd_log(&self) -> Result<String> {
        self.node.read(CONTAINERD_LOG)
    }

    /// Leaves the bed up when this value goes away.
    pub fn keep(self) {
        std::mem::forget(self.registry);
        self.node.keep();
    }
}

/// Asks `condition` again and again until it holds.
///
/// # Errors
/// When it does not hold in time, or fails itself.
pub fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + deadline;
    while !condition()? {
        if Instant::now() > end {
            bail!("waited {deadline:?} in vain until {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

impl Prefix {
    /// The installed configuration, pointed at another guest image.
    fn configuration_for(&self, guest: &Path) -> Result<String> {
        let installed = fs::read_to_string(self.path().join("configuration.toml"))
            .context("reading the installed configuration")?;
        let default = self.path().join("guest/default");
        Ok(installed.replace(&default.display().to_string(), &guest.display().to_string()))
    }
}
