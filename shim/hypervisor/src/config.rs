//! What a VM is made of.
//!
//! Plain data, filled in by the shim from its configuration and the pod; probing the node
//! (which accelerator, which vsock) is left to [`Hypervisor::start`](crate::Hypervisor::start).

use std::{num::NonZeroU32, os::fd::OwnedFd, path::PathBuf};

use crate::user::Users;

/// Everything a VM is made of.
#[derive(Debug)]
pub struct VmConfig {
    /// Name of the VM in process lists and log lines: the sandbox id.
    pub id: String,
    /// Directory for sockets, logs and the clean-up record; made with mode 0700 when absent.
    pub state_dir: PathBuf,
    /// The hypervisor's binary.
    pub path: PathBuf,
    /// Number of virtual CPUs; there is no hot-plug.
    pub vcpus: NonZeroU32,
    /// Memory of the guest in MiB; there is no hot-plug.
    pub memory_mib: NonZeroU32,
    /// Guest kernel.
    pub kernel: PathBuf,
    /// Guest initrd.
    pub initrd: PathBuf,
    /// Kernel command line, passed on unchanged because it is measured.
    pub cmdline: String,
    /// Firmware image; the hypervisor's own when `None`.
    pub firmware: Option<PathBuf>,
    /// Machine type, `q35` unless the administrator says otherwise.
    pub machine_type: String,
    /// Further machine options, as `key=value,…`; empty for none.
    pub machine_accelerators: String,
    /// CPU model; `None` picks the one that fits the accelerator.
    pub cpu_model: Option<String>,
    /// CPU features appended to the model, as in `pmu=off`; empty for none.
    pub cpu_features: String,
    /// Block devices, in the order in which the guest enumerates them.
    pub disks: Vec<Disk>,
    /// Network interfaces, in the order in which the guest enumerates them.
    pub nics: Vec<Nic>,
    /// How host and guest talk.
    pub vsock: Vsock,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Which protection from the host the guest gets.
    pub confidential: Confidential,
    /// Host file for the guest's random number device; no such device when `None`.
    pub entropy_source: Option<PathBuf>,
    /// Let the kernel move packets between tap and guest (`vhost-net`) where the node can.
    pub vhost_net: bool,
    /// Run the hypervisor without its own system call filter. For debugging only.
    pub disable_sandbox: bool,
    /// The users that the VM's processes run as, each with a root of its own that holds only what
    /// it needs; without, they run as we do.
    pub users: Option<Users>,
}

impl VmConfig {
    /// A VM of one CPU and 512 MiB without disks and interfaces; the caller fills in the rest.
    pub fn new(id: impl Into<String>, state_dir: PathBuf) -> Self {
        Self {
            id: id.into(),
            state_dir,
            path: PathBuf::from("/usr/bin/qemu-system-x86_64"),
            vcpus: NonZeroU32::MIN,
            memory_mib: NonZeroU32::MIN.saturating_add(511),
            kernel: PathBuf::new(),
            initrd: PathBuf::new(),
            cmdline: String::new(),
            firmware: None,
            machine_type: "q35".to_owned(),
            machine_accelerators: String::new(),
            cpu_model: None,
            cpu_features: String::new(),
            disks: Vec::new(),
            nics: Vec::new(),
            vsock: Vsock::Auto { device: None },
            accelerator: Accelerator::Auto,
            confidential: Confidential::None,
            entropy_source: None,
            vhost_net: true,
            disable_sandbox: false,
            users: None,
        }
    }
}

/// A virtio block device backed by a raw file or a host block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// File or block device on the host.
    pub path: PathBuf,
    /// The guest cannot write.
    pub read_only: bool,
    /// Serial number by which the guest finds the disk: up to 20 ASCII letters, digits, `-`, `_`.
    pub serial: Option<String>,
}

/// A virtio network interface over tap devices that the shim opened.
#[derive(Debug)]
pub struct Nic {
    /// Address of the interface in the guest.
    pub mac: [u8; 6],
    /// MTU that the guest is told.
    pub mtu: u16,
    /// One open tap file per queue pair; at least one.
    pub tap: Vec<OwnedFd>,
}

/// How host and guest talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vsock {
    /// The kernel's vhost-vsock where the node has it, else the given vhost-user device.
    Auto {
        /// `vhost-device-vsock` binary for nodes without `/dev/vhost-vsock`.
        device: Option<PathBuf>,
    },
    /// The kernel's vhost-vsock.
    Vhost,
    /// A process of its own that speaks vhost-user and the hybrid handshake.
    VhostUser {
        /// `vhost-device-vsock` binary.
        device: PathBuf,
    },
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM where the CPU can, else emulation with a warning.
    Auto,
    /// KVM, or no VM.
    Kvm,
    /// Emulation: correct and slow.
    Tcg,
}

/// Which protection from the host the guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confidential {
    /// None: the host can read and change the guest.
    None,
    /// AMD SEV-SNP: memory is encrypted, its integrity is kept, and the launch is measured.
    SevSnp(SevSnp),
    /// None, but the command line is that of SEV-SNP: [`VmConfig::path`] is a program that plays
    /// the secure processor and starts the hypervisor without it. For tests of what comes after.
    Simulated(SevSnp),
}

/// What the owner of the workload sees in the report besides the measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SevSnp {
    /// `HOST_DATA`: binds initdata to the launch.
    pub host_data: [u8; 32],
    /// Guest policy: what the platform must and the host must not do.
    pub policy: u64,
    /// The owner's signature over the launch.
    pub identity: Option<Identity>,
}

/// An ID block and what authenticates it, as the processor takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// ID block.
    pub block: [u8; 96],
    /// ID authentication information: keys and signatures.
    pub authentication: Box<[u8; 4096]>,
    /// An author key signed the ID key.
    pub author_key: bool,
}
