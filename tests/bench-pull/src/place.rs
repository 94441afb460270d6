//! Where it all happens: a loopback of our own, memory for files, a registry, containerd.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use tests_harness::{Containerd, Release, Skopeo, run_ok, umoci};

/// Name of the registry in references.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";
const START: Duration = Duration::from_secs(60);
const TOOL: Duration = Duration::from_secs(600);

/// The programs of others; one that is not to be had is said to be missing, and left out.
pub(crate) struct Peers {
    skopeo: Option<Skopeo>,
    umoci: Option<PathBuf>,
    containerd: Option<Containerd>,
}

impl Peers {
    /// Finds them in the cache, or downloads them.
    pub(crate) fn find() -> Self {
        let containerd = Release::V2_1.provide().or_else(|_| Release::V1_7.provide());
        Self {
            skopeo: said(Skopeo::provide(), "skopeo"),
            umoci: said(umoci(), "umoci"),
            containerd: said(containerd, "containerd"),
        }
    }
}

/// Everything that a pull needs, ours or a peer's.
pub(crate) struct Place {
    registry: Child,
    containerd: Option<(Containerd, Child)>,
    pub(crate) skopeo: Option<Skopeo>,
    pub(crate) umoci: Option<PathBuf>,
}

/// Directories and files of the bench, all in memory.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new("/run/bench").join(name)
}

impl Place {
    /// Sets it up.
    pub(crate) fn make() -> Result<Self> {
        own_network()?;
        let none = None::<&str>;
        mount(
            Some("tmpfs"),
            "/run",
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=90%"),
        )
        .context("mounting memory on /run")?;
        mount(none, "/run", none, MsFlags::MS_PRIVATE, none).context("keeping it ours")?;
        fs::create_dir_all(path("registry"))?;
        let registry = registry()?;
        let peers = Peers::find();
        let containerd = peers.containerd.map(containerd_in_memory);
        Ok(Self {
            registry,
            containerd: containerd.and_then(|started| said(started, "containerd")),
            skopeo: peers.skopeo,
            umoci: peers.umoci,
        })
    }

    /// `ctr` and the PID of its containerd, if there is one.
    pub(crate) fn ctr(&self) -> Option<(Command, u32)> {
        let (containerd, daemon) = self.containerd.as_ref()?;
        let mut command = Command::new(containerd.program("ctr"));
        command.arg("--address").arg(path("containerd.sock"));
        Some((command, daemon.id()))
    }

    /// Makes loopback as fast as a link of so many Mbit/s, or as fast as it is.
    pub(crate) fn shape(&self, mbit: Option<u32>) -> Result<()> {
        let mut command = Command::new("tc");
        match mbit {
            Some(mbit) => command.args([
                "qdisc",
                "replace",
                "dev",
                "lo",
                "root",
                "tbf",
                "burst",
                "256kb",
                "latency",
                "100ms",
                "rate",
                &format!("{mbit}mbit"),
            ]),
            None => command.args(["qdisc", "del", "dev", "lo", "root"]),
        };
        run_ok(command, TOOL).map(drop)
    }
}

/// Takes memory and gives it back, so that what is measured next finds it there.
///
/// A virtual machine may return what it does not use to its host, and then gets it anew
/// at each first touch: three to six times the cost of writing a file in memory, in one
/// run and not in the next, charged to whoever writes.
pub(crate) fn take_memory(bytes: u64) -> Result<()> {
    let file = path("memory");
    let zeros = &mut io::repeat(0).take(bytes);
    io::copy(zeros, &mut File::create(&file)?).context("taking memory")?;
    fs::remove_file(&file).context("giving memory back")
}

impl Drop for Place {
    fn drop(&mut self) {
        let daemon = self.containerd.as_mut().map(|(_, daemon)| daemon);
        for child in [&mut self.registry].into_iter().chain(daemon) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Refuses to touch a network that others use.
fn own_network() -> Result<()> {
    let table = fs::read_to_string("/proc/net/dev").context("reading the interfaces")?;
    let interfaces = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    ensure!(
        interfaces.map(str::trim).eq(["lo"]) && std::process::id() == 1,
        "this is not a network of its own; start it with hack/bench-pull"
    );
    let mut command = Command::new("ip");
    command.args(["link", "set", "lo", "up"]);
    run_ok(command, TOOL).map(drop)
}

fn said<T>(provided: Result<T>, name: &str) -> Option<T> {
    provided
        .inspect_err(|error| eprintln!("bench-pull: without {name}: {error:#}"))
        .ok()
}

fn registry() -> Result<Child> {
    let config = format!(
        "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: {REGISTRY} }}\n",
        path("registry/storage").display()
    );
    fs::write(path("registry/config.yml"), config)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(path("registry/config.yml"));
    serve(command, "registry/log", || {
        std::net::TcpStream::connect(REGISTRY).is_ok()
    })
}

fn containerd_in_memory(containerd: Containerd) -> Result<(Containerd, Child)> {
    let config = path("containerd.toml");
    fs::write(
        &config,
        format!(
            "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{}'\n",
            path("containerd/root").display(),
            path("containerd/state").display(),
            path("containerd.sock").display()
        ),
    )?;
    let mut command = Command::new(containerd.program("containerd"));
    command.arg("--config").arg(config);
    let child = serve(command, "containerd.log", || {
        std::os::unix::net::UnixStream::connect(path("containerd.sock")).is_ok()
    })?;
    Ok((containerd, child))
}

fn serve(mut command: Command, log: &str, is_up: impl Fn() -> bool) -> Result<Child> {
    let file = File::create(path(log))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting the server that logs to {log}"))?;
    let begin = Instant::now();
    while !is_up() {
        if begin.elapsed() > START || child.try_wait()?.is_some() {
            let _ = child.kill();
            let _ = child.wait();
            bail!("it did not start: {}", fs::read_to_string(path(log))?);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}
