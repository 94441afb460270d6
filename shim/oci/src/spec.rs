//! The parts of an OCI runtime spec that a guest can use, as containerd writes them.
//!
//! Own types instead of a general library: everything that the guest protocol
//! carries is here, an unknown capability or system call name passes through as
//! text for the guest to judge, and what no guest may get (hooks, other systems'
//! sections) is never even read. Names follow "Open Container Initiative Runtime
//! Specification" 1.2, `config.md` and `config-linux.md`.

use std::{collections::BTreeMap, fs::File, io, path::Path};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// The most bytes of a `config.json` that are read; containerd's are below 1 MiB.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

macro_rules! wire {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[expect(missing_docs, reason = "the specification explains its own fields")]
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$attr])* pub $field: $type,)*
        }
    };
}

wire!(
    /// `config.json`.
    Spec {
        oci_version: String,
        process: Option<Process>,
        root: Option<Root>,
        hostname: String,
        mounts: Vec<Mount>,
        annotations: BTreeMap<String, String>,
        linux: Option<Linux>,
    }
);
wire!(
    /// A process to run, in `config.json` or in an exec request.
    Process {
        terminal: bool,
        console_size: Option<ConsoleSize>,
        user: User,
        args: Vec<String>,
        env: Vec<String>,
        cwd: String,
        capabilities: Option<Capabilities>,
        rlimits: Vec<Rlimit>,
        no_new_privileges: bool,
        apparmor_profile: String,
        oom_score_adj: Option<i64>,
    }
);
wire!(
    /// Size of a terminal in characters.
    ConsoleSize {
        height: u32,
        width: u32,
    }
);
wire!(
    /// Who the process runs as.
    User {
        uid: u32,
        gid: u32,
        additional_gids: Vec<u32>,
        username: String,
    }
);
wire!(
    /// Capability sets by name.
    Capabilities {
        bounding: Vec<String>,
        effective: Vec<String>,
        inheritable: Vec<String>,
        permitted: Vec<String>,
        ambient: Vec<String>,
    }
);
wire!(
    /// One resource limit.
    Rlimit {
        #[serde(rename = "type")]
        kind: String,
        hard: u64,
        soft: u64,
    }
);
wire!(
    /// The root file system.
    Root {
        readonly: bool,
    }
);
wire!(
    /// One mount.
    Mount {
        destination: String,
        source: String,
        #[serde(rename = "type")]
        kind: String,
        options: Vec<String>,
    }
);
wire!(
    /// The Linux section.
    Linux {
        sysctl: BTreeMap<String, String>,
        resources: Option<Resources>,
        cgroups_path: String,
        namespaces: Vec<Namespace>,
        devices: Vec<Device>,
        seccomp: Option<Seccomp>,
        intel_rdt: Option<Value>,
        rootfs_propagation: String,
        masked_paths: Vec<String>,
        readonly_paths: Vec<String>,
    }
);
wire!(
    /// One namespace; an empty path means a new one.
    Namespace {
        #[serde(rename = "type")]
        kind: String,
        path: String,
    }
);
wire!(
    /// A device node to make.
    Device {
        path: String,
        #[serde(rename = "type")]
        kind: String,
        major: i64,
        minor: i64,
        file_mode: u32,
        uid: u32,
        gid: u32,
    }
);
wire!(
    /// Cgroup limits.
    Resources {
        memory: Option<Memory>,
        cpu: Option<Cpu>,
        pids: Option<Pids>,
        hugepage_limits: Vec<HugepageLimit>,
        #[serde(rename = "blockIO")]
        block_io: Option<Value>,
        network: Option<Value>,
        rdma: Option<Value>,
        unified: BTreeMap<String, String>,
    }
);
wire!(
    /// The limit on processes; -1 is none.
    Pids {
        limit: i64,
    }
);
wire!(
    /// Memory limits in bytes.
    Memory {
        limit: i64,
        reservation: i64,
        swap: i64,
        kernel: i64,
        #[serde(rename = "kernelTCP")]
        kernel_tcp: i64,
        swappiness: u64,
        #[serde(rename = "disableOOMKiller")]
        disable_oom_killer: bool,
    }
);
wire!(
    /// CPU limits in microseconds.
    Cpu {
        shares: u64,
        quota: i64,
        period: u64,
        burst: u64,
        idle: Option<i64>,
        realtime_runtime: i64,
        realtime_period: u64,
    }
);
wire!(
    /// A limit on huge pages.
    HugepageLimit {
        page_size: String,
        limit: u64,
    }
);
wire!(
    /// A system call filter.
    Seccomp {
        default_action: String,
        default_errno_ret: Option<u32>,
        listener_path: String,
        architectures: Vec<String>,
        flags: Vec<String>,
        syscalls: Vec<Syscall>,
    }
);
wire!(
    /// One rule of a system call filter.
    Syscall {
        names: Vec<String>,
        action: String,
        errno_ret: Option<u32>,
        args: Vec<SyscallArg>,
    }
);
wire!(
    /// One condition of a rule.
    SyscallArg {
        index: u64,
        value: u64,
        value_two: u64,
        op: String,
    }
);

/// Why a bundle's spec cannot be used.
#[derive(Debug, Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read the OCI spec {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is not JSON of the expected shape.
    #[error("the OCI spec {path} is malformed")]
    Malformed {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl Spec {
    /// Reads `config.json` of a bundle.
    ///
    /// # Errors
    ///
    /// [`SpecError`] names the file and what is wrong with it.
    pub fn load(bundle: &Path) -> Result<Self, SpecError> {
        let path = bundle.join("config.json");
        let name = || path.display().to_string();
        let read = |source| SpecError::Read {
            path: name(),
            source,
        };
        let mut text = Vec::new();
        let file = File::open(&path).map_err(read)?;
        io::Read::read_to_end(&mut io::Read::take(file, CONFIG_BYTES_MAX), &mut text)
            .map_err(read)?;
        agent_protocol::documents::parse_json(&text).map_err(|source| SpecError::Malformed {
            path: name(),
            source,
        })
    }

    /// The path of a namespace: `None` if the spec has no such namespace.
    pub fn namespace(&self, kind: &str) -> Option<&str> {
        let namespaces = &self.linux.as_ref()?.namespaces;
        namespaces
            .iter()
            .find(|namespace| namespace.kind == kind)
            .map(|namespace| namespace.path.as_str())
    }

    /// The value of an annotation, unless it is absent or empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let value = self.annotations.get(key)?;
        (!value.is_empty()).then_some(value)
    }
}
