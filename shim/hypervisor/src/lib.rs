//! Starts, watches and stops a VM.
//!
//! The shim describes a VM as a [`VmConfig`] and hands it to a [`Hypervisor`]; it gets back a
//! [`Vm`], the one owner of every process and file that the VM is made of. QEMU is the first
//! hypervisor ([`Qemu`]). Nothing outside this crate sees a command line, a monitor or a process.
//!
//! Whom it distrusts: the guest. What the guest prints is capped, stripped of control
//! characters and decides nothing; what it does to the hypervisor is confined by the hypervisor's
//! own sandbox, and by the user and the root file system that the hypervisor runs with. The node's administrator, who chose the binaries, is trusted here; the guest
//! does not trust this crate at all and measures what it was booted with.
//!
//! Where to start: [`VmConfig`], then [`Hypervisor::start`], then [`Vm`]. After a crash of the
//! process that held a [`Vm`], [`clean_up`] removes what is left.

mod argv;
mod config;
mod device;
mod output;
mod probe;
mod process;
mod qemu;
mod qmp;
mod record;
mod running;
mod snp;
mod socket;
mod user;
mod vm;
mod vsock;
mod world;

/// What a launch asks the node, for who wants to know before.
pub mod node {
    pub use crate::{
        probe::kvm,
        snp::{device as sev_device, is_enabled as snp_is_enabled, is_in_processor},
        user::is_open_to_others,
    };
}

pub use config::{Accelerator, Confidential, Disk, Identity, Nic, SevSnp, VmConfig, Vsock};
pub use qemu::Qemu;
pub use qmp::QmpError;
pub use record::clean_up;
pub use user::{User, Users};
pub use vm::{
    ConnectError, Hypervisor, ProcessExit, StartError, StopError, Vm, VmExit, VmExitCause,
};
