//! The contract between the shim and a hypervisor.
//!
//! A trait, so that a second hypervisor is a second module. Every method says what holds when it
//! returns; every wait has a deadline or ends with the VM.

use std::{io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::VmConfig;

/// Starts VMs.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Starts a VM and returns once its CPUs run; the guest is then still booting.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    async fn start(&self, config: VmConfig) -> Result<Box<dyn Vm>, StartError>;
}

/// A running VM, and the owner of its processes and files.
///
/// Dropping it kills the VM without ceremony.
#[async_trait]
pub trait Vm: Send + Sync {
    /// Process id of the hypervisor.
    fn pid(&self) -> u32;

    /// Every process that the VM consists of, the hypervisor first.
    fn processes(&self) -> Vec<u32>;

    /// Opens a stream to a port in the guest, trying anew until somebody listens.
    ///
    /// The stream may be an `AF_VSOCK` socket underneath: read, write and shut it down, and ask
    /// nothing else of it.
    ///
    /// # Errors
    /// At once when the VM has died, else when `deadline` has passed.
    async fn connect(&self, port: u32, deadline: Duration) -> Result<UnixStream, ConnectError>;

    /// Resolves when the hypervisor's process is gone, for any number of waiters.
    async fn exited(&self) -> VmExit;

    /// Ends the VM: asks the hypervisor to quit, kills it after `grace`, reaps it, and removes
    /// sockets and record. May be called again.
    ///
    /// # Errors
    /// When a process survives SIGKILL, or a file cannot be removed.
    async fn stop(&self, grace: Duration) -> Result<(), StopError>;

    /// The last lines that the guest wrote on its console, escaped; for error messages.
    fn console(&self) -> String;
}

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmExit {
    /// What ended it.
    pub cause: VmExitCause,
    /// How the hypervisor's process ended.
    pub status: ProcessExit,
    /// The last lines of the hypervisor's own messages, escaped; empty when it wrote none.
    pub message: String,
}

impl std::fmt::Display for VmExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cause {
            VmExitCause::Requested => write!(f, "the VM was stopped")?,
            VmExitCause::GuestShutdown => write!(f, "the guest powered off")?,
            VmExitCause::GuestReset => write!(f, "the guest reset itself")?,
            VmExitCause::GuestPanicked => write!(f, "the guest's kernel panicked")?,
            VmExitCause::Died => write!(f, "the hypervisor died: {}", self.status)?,
        }
        if !self.message.is_empty() {
            write!(f, " (it said: {})", self.message)?;
        }
        Ok(())
    }
}

/// What ended a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmExitCause {
    /// [`Vm::stop`] did.
    Requested,
    /// The guest powered off.
    GuestShutdown,
    /// The guest asked for a reboot, as it does after a panic; a VM never boots twice.
    GuestReset,
    /// The guest's kernel told of a panic.
    GuestPanicked,
    /// Nobody asked: the hypervisor crashed or was killed.
    Died,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessExit {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// Somebody else reaped it.
    Unknown,
}

impl std::fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => write!(f, "exit status unknown"),
        }
    }
}

/// Why a VM did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum StartError {
    /// A file that the VM is made of is not there or not readable.
    #[error("cannot open {what} {}; check that the path is right", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The node does not have the memory.
    #[error(
        "not enough free memory: the VM needs {needed_mib} MiB and the node has {available_mib} MiB available; stop something or lower the pod's memory"
    )]
    Memory { needed_mib: u64, available_mib: u64 },
    /// KVM was asked for and the node has none.
    #[error(
        "accelerator kvm cannot be used: {reason}; use a node with hardware virtualisation, or accelerator auto or tcg"
    )]
    Kvm { reason: String },
    /// The hypervisor is not root, and a device is root's.
    #[error(
        "the hypervisor runs as an unprivileged user, and {reason}; or set rootless = false in [hypervisor.qemu]"
    )]
    Device { reason: String },
    /// SEV-SNP was asked for and the node has none.
    #[error(
        "a SEV-SNP guest cannot be started: {reason}; use a node with SEV-SNP switched on in firmware and kernel"
    )]
    SevSnp { reason: String },
    /// The node cannot give the VM a vsock.
    #[error(
        "no vsock for the VM: /dev/vhost-vsock cannot be opened and no vhost-device-vsock binary is configured; load the module vhost_vsock or name the binary"
    )]
    NoVsock { source: io::Error },
    /// The kernel's vhost-vsock refused.
    #[error("cannot reserve a vsock address on /dev/vhost-vsock")]
    VsockAddress { source: io::Error },
    /// The state directory cannot be used.
    #[error("cannot use state directory {}", path.display())]
    StateDirectory { path: PathBuf, source: io::Error },
    /// A socket path would not fit into an address.
    #[error("socket path {} has {length} bytes and the system allows {limit}; use a shorter state directory", path.display())]
    SocketPath {
        path: PathBuf,
        length: usize,
        limit: usize,
    },
    /// A value of the configuration cannot be given to the hypervisor.
    #[error("{what} {value:?} cannot be used: {reason}")]
    Value {
        what: &'static str,
        value: String,
        reason: &'static str,
    },
    /// A process could not be started.
    #[error("cannot start {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    /// A process ended before the VM ran.
    #[error("{} ended while the VM started ({status}): {message}", program.display())]
    Exited {
        program: PathBuf,
        status: ProcessExit,
        message: String,
    },
    /// The vsock device did not listen in time.
    #[error("{} does not listen on {} after {} s", program.display(), socket.display(), waited.as_secs())]
    VsockDevice {
        program: PathBuf,
        socket: PathBuf,
        waited: Duration,
    },
    /// The hypervisor's monitor did not answer as it must.
    #[error("the monitor of {} did not answer as expected", program.display())]
    Monitor {
        program: PathBuf,
        source: crate::QmpError,
    },
}

/// Why no stream to the guest was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The VM ended before anybody answered.
    #[error(
        "{exit} before anything listened on vsock port {port}{}",
        Said(console)
    )]
    Exited {
        /// Port in the guest.
        port: u32,
        /// How the VM ended.
        exit: VmExit,
        /// The guest's last words on its console.
        console: String,
    },
    /// Nobody answered in time.
    #[error("nothing listened on vsock port {port} of the guest within {} s{}", waited.as_secs(), Said(console))]
    Deadline {
        /// Port in the guest.
        port: u32,
        /// The deadline that passed.
        waited: Duration,
        /// The guest's last words on its console.
        console: String,
        /// What the last attempt met.
        source: io::Error,
    },
}

/// Why a VM was not stopped cleanly.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// A process is still there after SIGKILL.
    #[error("process {pid} survived SIGKILL; it is probably stuck in the kernel")]
    Survived {
        /// The process.
        pid: u32,
    },
    /// A process could not be signalled.
    #[error("cannot kill process {pid}")]
    Kill {
        /// The process.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the VM is still there.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record of a VM cannot be read.
    #[error("cannot read the record {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

struct Said<'a>(&'a str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return write!(f, "; its console is silent");
        }
        write!(f, "; its console ends with: {}", self.0)
    }
}
