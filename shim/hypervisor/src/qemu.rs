//! Starts a VM with QEMU.
//!
//! The order is: check, probe, vsock device, record, QEMU, monitor. Whatever fails, the values
//! made so far are dropped and take their processes and sockets with them.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::DirBuilderExt as _, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    argv::{self, Launch},
    config::{Confidential, VmConfig},
    device::{self, Device, LAST_OUTPUT},
    output::Capture,
    probe::{self, Chosen},
    process::{Confinement, Process, Program, Stdout},
    qmp::{Qmp, QmpError},
    record::Files,
    running::{QemuVm, Remains},
    snp,
    user::Identity,
    vm::{Hypervisor, StartError, Vm},
    world::{self, World},
};

/// How long QEMU may take until its monitor answers; on a busy node that is seconds.
const MONITOR_PATIENCE: Duration = Duration::from_secs(30);
/// Both halves of the console log.
const CONSOLE_LIMIT: usize = 1024 * 1024;
/// Both halves of the log of QEMU's own messages.
const MESSAGES_LIMIT: usize = 64 * 1024;

/// QEMU as a [`Hypervisor`]: 6.0 or later, 9.1 for SEV-SNP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Qemu;

#[async_trait]
impl Hypervisor for Qemu {
    #[tracing::instrument(skip_all, fields(vm.id = %config.id))]
    async fn start(&self, config: VmConfig) -> Result<Box<dyn Vm>, StartError> {
        probe::preflight(&config)?;
        let accelerator = probe::accelerator(config.accelerator)?;
        let snp = snp::prepare(&config, accelerator)?;
        make_directory(&config.state_dir)?;
        let remains = Remains::new(Files::new(&config.state_dir));
        let user = config.users.map(|users| users.vsock_device);
        if config.users.is_some() {
            make_world_root(remains.files())?;
        }
        let device = device::set_up(&config.vsock, remains.files(), user).await?;
        record(
            &config,
            remains.files(),
            device.process.as_ref().map(Process::pid).as_slice(),
        )?;
        let vm = launch(config, (accelerator, snp), remains, device).await?;
        Ok(Box::new(vm))
    }
}

fn make_directory(path: &Path) -> Result<(), StartError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| StartError::StateDirectory {
        path: path.to_owned(),
        source,
    })
}

fn make_world_root(files: &Files) -> Result<(), StartError> {
    let path = files.world_root();
    world::make_root(&path).map_err(|source| StartError::StateDirectory { path, source })
}

fn record(config: &VmConfig, files: &Files, pids: &[u32]) -> Result<(), StartError> {
    files
        .write_record(pids)
        .map_err(|source| StartError::StateDirectory {
            path: config.state_dir.clone(),
            source,
        })
}

/// Values are dropped in reverse order of declaration, so on failure the processes are gone when
/// their files are removed.
async fn launch(
    mut config: VmConfig,
    (accelerator, snp): (Chosen, Option<snp::Object>),
    remains: Remains,
    device: Device,
) -> Result<QemuVm, StartError> {
    let program = config.path.clone();
    let spawn_failed = |source| StartError::Spawn {
        program: program.clone(),
        source,
    };
    let (ours, monitor) = UnixStream::pair().map_err(spawn_failed)?;
    let monitor = OwnedFd::from(monitor);
    let confinement = confinement(&config, (accelerator, snp.is_some()), remains.files())?;
    let disks = config.disks.iter().map(probe::open_disk);
    let disks = disks.collect::<Result<Vec<_>, _>>()?;
    let vhost_net = vhost_net(&config, accelerator);
    let arguments = argv::arguments(&Launch {
        config: &config,
        accelerator,
        snp,
        monitor: monitor.as_raw_fd(),
        vsock: device.argument,
        disks: disks
            .iter()
            .map(|(file, is_device)| (file.as_raw_fd(), *is_device))
            .collect(),
        taps: config
            .nics
            .iter()
            .map(|n| n.tap.iter().map(|tap| tap.as_raw_fd()).collect())
            .collect(),
        vhost_net: vhost_net
            .iter()
            .map(|files| files.iter().map(|file| file.as_raw_fd()).collect())
            .collect(),
    });
    let mut inherited = vec![monitor, device.fd];
    inherited.extend(config.nics.iter_mut().flat_map(|nic| nic.tap.drain(..)));
    inherited.extend(disks.into_iter().map(|(file, _)| file));
    inherited.extend(vhost_net.into_iter().flatten());
    let program = Program {
        path: program.clone(),
        arguments,
        inherited,
        stdout: Stdout::Captured,
        confinement,
    };
    let (qemu, output) = Process::spawn(program).await.map_err(spawn_failed)?;

    let pids = [Some(qemu.pid()), device.process.as_ref().map(Process::pid)];
    let pids: Vec<u32> = pids.into_iter().flatten().collect();
    record(&config, remains.files(), &pids)?;
    let files = remains.files();
    let messages = Capture::start(output.stderr, files.hypervisor_log(), MESSAGES_LIMIT);
    let messages = messages.map_err(spawn_failed)?;
    let no_console = || io::Error::other("QEMU has no standard output");
    let console = output.stdout.ok_or_else(no_console).map_err(spawn_failed)?;
    let console = Capture::start(console, files.console_log(), CONSOLE_LIMIT);
    let console = console.map_err(spawn_failed)?;
    let qmp = Qmp::new(connection(ours).map_err(spawn_failed)?);
    await_running(&config, &qemu, &messages, &qmp).await?;
    tracing::info!(pid = qemu.pid(), ?accelerator, "vm started");
    Ok(QemuVm::new(
        (qemu, device.process),
        qmp,
        device.address,
        (console, messages),
        remains,
    ))
}

/// The kernel's way for packets, opened once for each tap, where it is wanted and there.
fn vhost_net(config: &VmConfig, accelerator: Chosen) -> Vec<Vec<OwnedFd>> {
    if !config.vhost_net || accelerator != Chosen::Kvm {
        return Vec::new();
    }
    let opened = config.nics.iter().map(|nic| {
        let taps = nic.tap.iter();
        taps.map(|_| probe::open_vhost_net()).collect()
    });
    opened.collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Who QEMU is and what it finds. What plays QEMU for tests needs the whole node.
fn confinement(
    config: &VmConfig,
    (accelerator, is_confidential): (Chosen, bool),
    files: &Files,
) -> Result<Option<Confinement>, StartError> {
    let simulated = matches!(config.confidential, Confidential::Simulated(_));
    let Some(users) = config.users.filter(|_| !simulated) else {
        return Ok(None);
    };
    let mut identity = Identity::of(users.hypervisor);
    let mut world = World::of(&config.path, files.world_root());
    let boot = [Some(&config.kernel), Some(&config.initrd)].into_iter();
    for path in boot.chain([config.firmware.as_ref()]).flatten() {
        world.read(path);
    }
    if let Some(source) = &config.entropy_source {
        world.device(source);
    }
    let kvm = (accelerator == Chosen::Kvm).then_some("/dev/kvm");
    let sev = is_confidential.then_some("/dev/sev");
    for device in kvm.into_iter().chain(sev).map(Path::new) {
        let admitted = identity.admit(device);
        admitted.map_err(|reason| StartError::Device { reason })?;
        world.device(device);
    }
    Ok(Some(Confinement { identity, world }))
}

fn connection(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// Waits until the CPUs run. When QEMU ends instead, its own words are the error.
async fn await_running(
    config: &VmConfig,
    qemu: &Process,
    messages: &Capture,
    qmp: &Qmp,
) -> Result<(), StartError> {
    let program = config.path.clone();
    match qmp.negotiate(MONITOR_PATIENCE).await {
        Ok(()) => return Ok(()),
        // A QEMU that gives up closes the monitor first.
        Err(QmpError::Closed | QmpError::Io(_)) => {}
        Err(source) => return Err(StartError::Monitor { program, source }),
    }
    let Ok(status) = tokio::time::timeout(MONITOR_PATIENCE, qemu.exited()).await else {
        return Err(StartError::Monitor {
            program,
            source: QmpError::Closed,
        });
    };
    messages.finished(LAST_OUTPUT).await;
    let message = messages.excerpt();
    if message.contains("Cannot allocate memory") {
        let needed_mib = u64::from(config.memory_mib.get());
        let available_mib = probe::available_mib().unwrap_or(0);
        return Err(StartError::Memory {
            needed_mib,
            available_mib,
        });
    }
    Err(StartError::Exited {
        program,
        status,
        message,
    })
}
