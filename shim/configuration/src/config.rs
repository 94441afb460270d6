//! The typed configuration, with defaults filled in.
//!
//! Table and key names are those of Kata Containers, so that a Kata file can be
//! trimmed into ours.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

/// All of the configuration, defaults filled in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    hypervisor: Hypervisors,
    agent: Agents,
    /// `[runtime]`.
    pub runtime: Runtime,
    /// The policy in the pod's annotation, as it stands there.
    #[serde(skip)]
    pub policy: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Hypervisors {
    qemu: Qemu,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Agents {
    kata: Agent,
}

impl Config {
    /// `[hypervisor.qemu]`.
    pub fn qemu(&self) -> &Qemu {
        &self.hypervisor.qemu
    }

    /// `[hypervisor.qemu]`, for what a pod's annotations may change.
    pub fn qemu_mut(&mut self) -> &mut Qemu {
        &mut self.hypervisor.qemu
    }

    /// `[agent.kata]`.
    pub fn agent(&self) -> &Agent {
        &self.agent.kata
    }

    /// Whether the guest pulls images whatever the snapshotter delivered.
    pub fn force_guest_pull(&self) -> bool {
        let runtime = &self.runtime;
        runtime.experimental_force_guest_pull
            || runtime
                .experimental
                .iter()
                .any(|name| name == "force_guest_pull")
    }

    /// How long a container may take to be created, the image's pull included.
    pub fn create_container_timeout(&self) -> Duration {
        let seconds = self.runtime.create_container_timeout;
        Duration::from_secs(seconds.unwrap_or(self.agent().create_container_timeout))
    }

    /// Sets [`Config::create_container_timeout`].
    pub fn set_create_container_timeout(&mut self, seconds: u64) {
        self.runtime.create_container_timeout = Some(seconds);
    }
}

/// What kind of hardware protects the VM from its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// The guest does the same as with a TEE, but the host can look inside.
    #[default]
    None,
    /// AMD SEV-SNP.
    Snp,
    /// The secure processor that tests simulate.
    Simulated,
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where the CPU can, TCG with a warning where it cannot.
    #[default]
    Auto,
    /// KVM only; without it no VM starts.
    Kvm,
    /// Emulation.
    Tcg,
}

/// `[hypervisor.qemu]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Qemu {
    /// The QEMU binary.
    pub path: PathBuf,
    /// Directory of an installed guest image (`manifest.json`, kernel, initrd).
    pub guest_image: PathBuf,
    /// The vhost-user vsock device, used where `/dev/vhost-vsock` is missing.
    pub vhost_user_vsock_device: PathBuf,
    /// What protects the VM.
    pub tee: Tee,
    /// What runs the VM.
    pub accelerator: Accelerator,
    /// vCPUs of a pod without CPU limit; negative means all of the host's.
    pub default_vcpus: f32,
    /// Memory of a pod without memory limit, in MiB.
    pub default_memory: u32,
    /// vCPUs added to a pod's CPU limit.
    pub overhead_vcpus: f32,
    /// Memory added to a pod's memory limit, in MiB.
    pub overhead_memory: u32,
    /// Size of the disk for images and volumes, in MiB; 0 keeps them in the guest's memory.
    pub scratch_disk_mib: u32,
    /// Where the files of those disks are.
    pub scratch_disk_directory: PathBuf,
    /// Regular expressions of the hypervisor annotations that pods may use.
    pub enable_annotations: Vec<String>,
    /// Initdata of pods that bring none, packed as in their annotation; empty for none.
    pub initdata: String,
    /// Whether a kernel without a guard against the host's ACPI tables may be started with a TEE.
    pub allow_kernel_without_guard: bool,
    /// Firmware that is measured with the guest image; only used with a TEE.
    pub firmware: PathBuf,
    /// Guest policy of a SEV-SNP launch (AMD 56860, "Guest Policy").
    pub snp_guest_policy: u32,
    /// ID block of a SEV-SNP launch in base64, or nothing.
    pub snp_id_block: String,
    /// ID authentication information that belongs to the ID block, in base64.
    pub snp_id_auth: String,
    /// Whether QEMU and the vsock device run as unprivileged users, and not as root.
    pub rootless: bool,
    /// The first of the numbers that those users may have.
    pub rootless_first_user: u32,
    /// How many there are; a pod takes two.
    pub rootless_user_count: u32,
    /// Whether packets are moved by QEMU itself instead of the kernel.
    pub disable_vhost_net: bool,
    /// Whether the console and QEMU's messages are logged at length.
    pub enable_debug: bool,
}

impl Default for Qemu {
    fn default() -> Self {
        Self {
            path: "/usr/bin/qemu-system-x86_64".into(),
            guest_image: "/opt/kata-cc/guest/default".into(),
            vhost_user_vsock_device: "/opt/kata-cc/bin/vhost-device-vsock".into(),
            tee: Tee::None,
            accelerator: Accelerator::Auto,
            default_vcpus: 1.0,
            default_memory: 2048,
            overhead_vcpus: 0.2,
            // More than Kata's: the guest itself pulls and unpacks images.
            overhead_memory: 256,
            scratch_disk_mib: 10_240,
            scratch_disk_directory: "/var/lib/kata-cc/scratch".into(),
            enable_annotations: Vec::new(),
            initdata: String::new(),
            allow_kernel_without_guard: false,
            firmware: PathBuf::new(),
            // SMT allowed, and the bit that must be set; no debugging, no migration.
            snp_guest_policy: 0x3_0000,
            snp_id_block: String::new(),
            snp_id_auth: String::new(),
            rootless: true,
            // Systemd leaves these to nobody (systemd's "Users, Groups, UIDs and GIDs").
            rootless_first_user: 1_879_048_192,
            rootless_user_count: 65_536,
            disable_vhost_net: false,
            enable_debug: false,
        }
    }
}

/// `[agent.kata]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// How long the agent may take to answer over a new stream, in milliseconds; twice as
    /// long with each further stream.
    pub dial_timeout_ms: u64,
    /// Deadline of all attempts together, in milliseconds.
    pub reconnect_timeout_ms: u64,
    /// Deadline of a health check, in milliseconds.
    pub health_check_request_timeout_ms: u64,
    /// Deadline of CreateContainer, image pull included, in seconds.
    create_container_timeout: u64,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            dial_timeout_ms: 10_000,
            // Many pods may start at once; a VM that dies is noticed long before.
            reconnect_timeout_ms: 240_000,
            health_check_request_timeout_ms: 90_000,
            create_container_timeout: 60,
        }
    }
}

/// How the pod's network reaches the VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Internetworking {
    /// Traffic-control redirection between each link and a tap.
    #[default]
    Tcfilter,
    /// No network.
    None,
}

/// `[runtime]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Runtime {
    /// Log at debug level.
    pub enable_debug: bool,
    /// How the pod's network reaches the VM.
    pub internetworking_model: Internetworking,
    /// Drop the system call filter from specs.
    pub disable_guest_seccomp: bool,
    /// Put the shim, the VM and its helpers into the pod's cgroup.
    pub sandbox_cgroup_only: bool,
    experimental: Vec<String>,
    /// The Go shim's spelling of `experimental = ["force_guest_pull"]`.
    pub experimental_force_guest_pull: bool,
    /// The most bytes of a pod's `emptyDir` volumes, by name; set by annotation only.
    #[serde(skip)]
    pub empty_dir_limits: BTreeMap<String, u64>,
    /// The Go shim's place for the agent's key of the same name.
    create_container_timeout: Option<u64>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            enable_debug: false,
            internetworking_model: Internetworking::Tcfilter,
            disable_guest_seccomp: false,
            sandbox_cgroup_only: true,
            experimental: Vec::new(),
            experimental_force_guest_pull: false,
            empty_dir_limits: BTreeMap::new(),
            create_container_timeout: None,
        }
    }
}
