//! The agent's life once the guest is prepared: log, reaper, network, server, and
//! the end of the guest.

use std::{error::Error as StdError, fs, path::Path, sync::Arc, time::Duration};

use agent_containers::{Containers, Images, OomEvents, PullConfig, Reaper, Storages, Surroundings};
use agent_evidence::tee::tpm::{Register, Tpm, TpmDevice};
use agent_measured::Measured;
use agent_requests::paths;
use agent_scratch_disk::Scratch;
use nix::sys::reboot::{RebootMode, reboot};
use rustix::process::{Resource, Rlimit};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::sleep,
};
use tracing::{error, info, warn};

use crate::{
    config::Config,
    initdata::{self, Boot},
    keys, log,
    network::Network,
    rest,
    rpc::{self, Guest},
    run_error::{RunError, system},
    sandbox::Sandbox,
    told::{self, Told},
    version::VERSION,
};

/// Requests are short; what takes long waits for others or runs beside.
const WORKERS: usize = 2;
/// Pulls, mounts and file copies that run at once; each costs a thread.
const BLOCKING_THREADS_MAX: usize = 64;
const STACK_BYTES: usize = 512 << 10;
/// How long the answer to the last request may take to leave the guest.
const FAREWELL: Duration = Duration::from_millis(200);
const OPEN_FILES: Rlimit = Rlimit {
    current: Some(65_536),
    maximum: Some(524_288),
};

/// How this agent was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// As the guest's first process.
    Init,
    /// As a plain process in namespaces that a test made; the address comes from
    /// the environment, as Kata's agent has it.
    Process,
}

/// Serves the host until the pod is taken down.
///
/// # Errors
///
/// When the agent cannot start.
pub(crate) fn run(role: Role) -> Result<(), RunError> {
    let config = configure(role)?;
    log::start(config.log_level).map_err(system("start the log"))?;
    for key in &config.ignored {
        warn!(key, "kernel command line key ignored");
    }
    let _ = rustix::process::setrlimit(Resource::Nofile, OPEN_FILES);
    if role == Role::Process {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| system("become a subreaper")(error.into()))?;
    }
    for path in [
        paths::STATE_ROOT,
        paths::RUNTIME_ROOT,
        paths::SHARED_ROOT,
        paths::SANDBOX_ROOT,
    ] {
        fs::create_dir_all(path).map_err(system("make the state directories"))?;
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let scratch = match role {
        Role::Init => Scratch::start(),
        Role::Process => Scratch::memory(),
    };
    let (measured, boot) = measure(role)?;
    runtime.block_on(serve(config, boot, measured, Arc::new(scratch)))
}

/// Begins the log, in the guest's TPM too if there is one, and finds out what the guest
/// was given. A TPM that fails is no reason to go on without: its PCRs would say less
/// than happened.
fn measure(role: Role) -> Result<(Arc<Measured>, Boot), RunError> {
    if role == Role::Process {
        let measured = Arc::new(Measured::default());
        let boot = initdata::none(&measured)?;
        return Ok((measured, boot));
    }
    let tpm = TpmDevice::open()?
        .map(Tpm::start)
        .transpose()?
        .map(Arc::new);
    let register = tpm.clone().map(|tpm| tpm as Arc<dyn Register>);
    let measured = Arc::new(Measured::with(register));
    let boot = initdata::find(&measured, tpm.as_ref())?;
    Ok((measured, boot))
}

fn configure(role: Role) -> Result<Config, RunError> {
    const ADDRESS: &str = "KATA_AGENT_SERVER_ADDR";
    match role {
        Role::Init => {
            let line = fs::read_to_string("/proc/cmdline");
            Ok(Config::parse(
                &line.map_err(system("read the kernel command line"))?,
            )?)
        }
        Role::Process => {
            let address = std::env::var(ADDRESS).unwrap_or_default();
            Ok(Config::parse(&format!("agent.server_addr={address}"))?)
        }
    }
}

async fn serve(
    config: Config,
    boot: Boot,
    measured: Arc<Measured>,
    scratch: Arc<Scratch>,
) -> Result<(), RunError> {
    let reaper = Reaper::default();
    let reaping = tokio::spawn(reaper.clone().run());
    let network = Network::connect(Arc::clone(&measured))?;
    let oom = Arc::new(OomEvents::default());
    let storages = Arc::new(Storages::new(Arc::clone(&scratch)));
    let pull_config = PullConfig {
        https_proxy: config.https_proxy,
        no_proxy: config.no_proxy,
        pull_deadline: config.image_pull_timeout,
    };
    let broker = keys::broker(
        Path::new(agent_protocol::initdata::DIRECTORY),
        boot.hardware.clone(),
        Arc::clone(&measured),
    );
    let images = Arc::new(Images::new(pull_config, scratch).with_keys(broker));
    let containers = Arc::new(Containers::new(Surroundings {
        reaper,
        oom: Arc::clone(&oom),
        storages: Arc::clone(&storages),
        images,
        log: Arc::clone(&measured),
        pipe_size: config.container_pipe_size,
        output_patience: config.output_patience,
    }));
    let destroyed = Arc::new(Notify::new());
    let guest = Guest {
        judge: Arc::clone(&boot.judge),
        sandbox: Arc::new(Sandbox::new(storages)),
        containers,
        network: network.clone(),
        oom,
        destroyed: Arc::clone(&destroyed),
    };
    let address = config.server_address;
    let mut server = rpc::serve(guest, &address)
        .await
        .map_err(|source| RunError::Listen {
            address,
            source: Box::new(source),
        })?;
    let uptime_ms = u64::try_from(log::uptime().as_millis()).unwrap_or(u64::MAX);
    info!(uptime_ms, version = VERSION, "agent ready");
    if let Err(error) = network.loopback_up().await {
        let told = told::network(&error);
        warn!(%told, error = &error as &dyn StdError, "loopback interface is not up");
    }
    if let Err(error) = rest::serve(boot.hardware, measured, boot.judge).await {
        let told = Told::new("cannot listen").errno(&error);
        warn!(%told, error = &error as &dyn StdError, "evidence is not served");
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen to signals"))?;
    tokio::select! {
        () = destroyed.notified() => info!("sandbox destroyed"),
        _ = terminate.recv() => info!("agent asked to end"),
        _ = reaping => error!("reaper ended"),
    }
    sleep(FAREWELL).await;
    let _ = server.shutdown().await;
    Ok(())
}

/// Ends the guest. Nothing in it outlives it, so nothing is written back; the VM
/// monitor was told to take a restart for the end.
pub fn end_guest() {
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    let error = std::io::Error::from(error);
    log::say(&Told::new("cannot end the guest").errno(&error));
}
