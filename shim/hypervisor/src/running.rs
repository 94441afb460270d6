//! A VM that runs: connecting to it, waiting for its end, ending it.
//!
//! One task waits for whichever process of the VM ends first, ends the others, and publishes how
//! it came about to any number of waiters. The vsock device counts as part of the VM: without it
//! nobody could reach the guest again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{net::UnixStream, sync::watch, time::Instant};

use crate::{
    device::LAST_OUTPUT,
    output::Capture,
    process::Process,
    qmp::Qmp,
    record::{Files, KILL_PATIENCE},
    vm::{ConnectError, ProcessExit, StopError, Vm, VmExit, VmExitCause},
    vsock::Address,
};

/// The vsock device's place in QEMU's object tree, by the id it has on the command line.
const VSOCK_DEVICE: &str = "/machine/peripheral/vsock/virtio-backend";
/// How long QEMU may take to say how the device is.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);
/// The device process takes its last messages from QEMU after QEMU has answered us.
const DEVICE_SETTLES: Duration = Duration::from_millis(25);

/// The sockets and the record of a VM, removed when dropped.
#[derive(Debug)]
pub(crate) struct Remains(Files);

impl Remains {
    pub(crate) fn new(files: Files) -> Self {
        Self(files)
    }

    pub(crate) fn files(&self) -> &Files {
        &self.0
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove_sockets() {
            tracing::warn!(%error, "files of a vm are left behind");
        }
    }
}

/// The processes of a VM.
#[derive(Debug)]
struct Processes {
    qemu: Process,
    device: Option<Process>,
}

impl Processes {
    fn iter(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.qemu).chain(&self.device)
    }

    fn kill(&self) {
        for process in self.iter() {
            if let Err(error) = process.kill() {
                tracing::warn!(pid = process.pid(), %error, "process could not be killed");
            }
        }
    }

    async fn device_exited(&self) -> ProcessExit {
        match &self.device {
            Some(device) => device.exited().await,
            None => std::future::pending().await,
        }
    }
}

/// A VM that QEMU runs.
#[derive(Debug)]
pub(crate) struct QemuVm {
    processes: Arc<Processes>,
    qmp: Qmp,
    address: Address,
    console: Capture,
    /// Somebody asked for the end.
    stopping: Arc<AtomicBool>,
    exit: watch::Receiver<Option<VmExit>>,
    remains: Remains,
}

impl QemuVm {
    pub(crate) fn new(
        (qemu, device): (Process, Option<Process>),
        qmp: Qmp,
        address: Address,
        (console, messages): (Capture, Capture),
        remains: Remains,
    ) -> Self {
        let processes = Arc::new(Processes { qemu, device });
        let stopping = Arc::new(AtomicBool::new(false));
        let (publish, exit) = watch::channel(None);
        let watcher = Watcher {
            processes: Arc::clone(&processes),
            qmp: qmp.clone(),
            messages,
            stopping: Arc::clone(&stopping),
        };
        tokio::spawn(async move {
            let exit = watcher.watch().await;
            tracing::info!(%exit, "vm ended");
            publish.send_replace(Some(exit));
        });
        Self {
            processes,
            qmp,
            address,
            console,
            stopping,
            exit,
            remains,
        }
    }
}

impl QemuVm {
    /// Waits until the vsock device can take a connection.
    ///
    /// vhost-device-vsock 0.3 stops serving for good when one arrives while the guest's driver
    /// is setting up its queues, so nobody may knock before that is over.
    async fn carrier_ready(&self) {
        if self.processes.device.is_none() {
            return;
        }
        let started = self.qmp.vhost_started(VSOCK_DEVICE, DEVICE_PATIENCE).await;
        if let Err(error) = started {
            tracing::debug!(%error, "state of the vsock device is not known");
        }
        tokio::time::sleep(DEVICE_SETTLES).await;
    }

    async fn connect_when_ready(&self, port: u32, deadline: Duration) -> io::Result<UnixStream> {
        let start = Instant::now();
        let ready = tokio::time::timeout(deadline, self.carrier_ready()).await;
        ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let left = deadline.saturating_sub(start.elapsed());
        self.address.connect(port, left).await
    }
}

impl Drop for QemuVm {
    fn drop(&mut self) {
        self.processes.kill();
        for process in self.processes.iter() {
            process.await_end();
        }
    }
}

#[async_trait]
impl Vm for QemuVm {
    fn pid(&self) -> u32 {
        self.processes.qemu.pid()
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    async fn connect(&self, port: u32, deadline: Duration) -> Result<UnixStream, ConnectError> {
        tokio::select! {
            biased;
            exit = self.exited() => {
                self.console.finished(LAST_OUTPUT).await;
                Err(ConnectError::Exited { port, exit, console: self.console() })
            }
            connected = self.connect_when_ready(port, deadline) => connected.map_err(|source| {
                ConnectError::Deadline { port, waited: deadline, console: self.console(), source }
            }),
        }
    }

    async fn exited(&self) -> VmExit {
        let mut exit = self.exit.clone();
        let known = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| exit.clone());
        // The watcher publishes before it ends, unless the runtime is being torn down.
        known.unwrap_or(VmExit {
            cause: VmExitCause::Died,
            status: ProcessExit::Unknown,
            message: String::new(),
        })
    }

    async fn stop(&self, grace: Duration) -> Result<(), StopError> {
        let deadline = Instant::now() + grace;
        self.stopping.store(true, Ordering::Release);
        if !self.processes.qemu.is_gone() {
            // A monitor that does not answer is what the kill below is for.
            let _refused = self.qmp.execute("quit", grace).await;
            let _elapsed = tokio::time::timeout_at(deadline, self.processes.qemu.exited()).await;
        }
        for process in self.processes.iter() {
            let pid = process.pid();
            let gone = process.kill_and_wait(KILL_PATIENCE).await;
            if !gone.map_err(|source| StopError::Kill { pid, source })? {
                return Err(StopError::Survived { pid });
            }
        }
        self.exited().await;
        self.remains.files().remove_sockets()
    }

    fn console(&self) -> String {
        self.console.excerpt()
    }
}

/// Waits for the end of a VM.
struct Watcher {
    processes: Arc<Processes>,
    qmp: Qmp,
    messages: Capture,
    stopping: Arc<AtomicBool>,
}

impl Watcher {
    async fn watch(self) -> VmExit {
        let device_died = tokio::select! {
            biased;
            _ = self.processes.qemu.exited() => None,
            // Wake-ups are not ordered: when both are gone, QEMU was the first.
            status = self.processes.device_exited() => {
                (!self.processes.qemu.is_gone()).then_some(status)
            }
        };
        self.processes.kill();
        let status = self.processes.qemu.exited().await;
        let told = self.qmp.last_words(LAST_OUTPUT).await;
        self.messages.finished(LAST_OUTPUT).await;
        let message = match device_died {
            Some(status) => format!("the vsock device ended before the VM, {status}"),
            None => self.messages.excerpt(),
        };
        let requested = self.stopping.load(Ordering::Acquire);
        let asked_for = if requested {
            VmExitCause::Requested
        } else {
            VmExitCause::Died
        };
        VmExit {
            cause: told.unwrap_or(asked_for),
            status,
            message,
        }
    }
}
