//! The OCI spec of a container: the host's message becomes a spec of the OCI
//! runtime specification that holds only what the guest will do.
//!
//! What the host names and the guest decides: the root file system's path, the
//! cgroup's path and the namespaces' paths are not even read. Labels of security
//! modules that the guest does not have are dropped.

use std::collections::HashMap;

use agent_protocol::{id::ContainerId, path::GuestPath, rpc::oci};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Map, Value, json};

use crate::{
    error::{RequestError, Unsupported},
    limits::Limits,
    mounts,
    parse::{at_most, no_zero, texts},
    paths, seccomp,
};

const LIST_MAX: usize = 8192;
const NAME_BYTES_MAX: usize = 256;
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";

/// What a container runs and how.
#[derive(Debug)]
pub struct ContainerSpec {
    /// The spec, without namespaces: those are the pod's business.
    pub spec: Spec,
    /// Its first process.
    pub process: ProcessSpec,
    /// Settings of the pod's network that the container asks for.
    pub network_sysctl: Vec<(String, String)>,
    /// Its limits.
    pub limits: Limits,
    /// Where in the container its last message is, if it has one.
    pub termination_path: Option<GuestPath>,
}

/// What a process runs and how.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The process.
    pub process: Process,
    /// User by name, to be looked up in the image; empty if by number.
    pub user_name: String,
    /// Size of its terminal in lines and characters, if known.
    pub terminal_size: Option<(u16, u16)>,
}

impl ContainerSpec {
    pub(super) fn parse(container: &ContainerId, spec: oci::Spec) -> Result<Self, RequestError> {
        refuse_hooks(spec.Hooks.get_or_default())?;
        let process = spec
            .Process
            .into_option()
            .ok_or(RequestError::Missing("process"))?;
        let process = ProcessSpec::parse(process)?;
        let linux = spec.Linux.into_option().unwrap_or_default();
        refuse_user_namespace(&linux)?;
        refuse_devices(&linux.Devices)?;
        let limits = Limits::parse(linux.Resources.get_or_default())?;
        let (network_sysctl, sysctl) = sysctls(linux.Sysctl)?;
        let json = json!({
            "ociVersion": "1.2.0",
            "process": serde_json::to_value(&process.process).map_err(RequestError::Spec)?,
            "root": {
                "path": paths::bundle(container).join("rootfs"),
                "readonly": spec.Root.get_or_default().Readonly,
            },
            "mounts": mounts::parse(spec.Mounts)?,
            "linux": linux_section(
                container,
                Parts {
                    limits: &limits,
                    sysctl,
                    masked: linux.MaskedPaths,
                    readonly: linux.ReadonlyPaths,
                    seccomp: linux.Seccomp.into_option(),
                },
            )?,
        });
        Ok(Self {
            spec: serde_json::from_value(json).map_err(RequestError::Spec)?,
            process,
            network_sysctl,
            limits,
            termination_path: spec
                .Annotations
                .get(TERMINATION_PATH)
                .and_then(|path| GuestPath::parse(path).ok()),
        })
    }
}

fn refuse_hooks(hooks: &oci::Hooks) -> Result<(), RequestError> {
    let all = [
        &hooks.Prestart,
        &hooks.Poststart,
        &hooks.Poststop,
        &hooks.CreateRuntime,
        &hooks.CreateContainer,
        &hooks.StartContainer,
    ];
    if all.iter().any(|list| !list.is_empty()) {
        return Err(Unsupported::Hooks.into());
    }
    Ok(())
}

fn refuse_user_namespace(linux: &oci::Linux) -> Result<(), RequestError> {
    let asked = linux
        .Namespaces
        .iter()
        .any(|namespace| namespace.Type == "user");
    if asked || !linux.UIDMappings.is_empty() || !linux.GIDMappings.is_empty() {
        return Err(Unsupported::UserNamespace.into());
    }
    Ok(())
}

/// Nodes every container gets anyway; others would reach into the guest.
fn refuse_devices(devices: &[oci::LinuxDevice]) -> Result<(), RequestError> {
    const DEFAULT: [(i64, i64); 8] = [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ];
    match devices
        .iter()
        .find(|device| !DEFAULT.contains(&(device.Major, device.Minor)))
    {
        Some(device) => {
            let path = device.Path.chars().take(NAME_BYTES_MAX).collect();
            Err(Unsupported::Device(path).into())
        }
        None => Ok(()),
    }
}

type Sysctls = HashMap<String, String>;

/// Settings of the network belong to the guest, whose network is the pod's; the
/// library sets the rest inside the container.
fn sysctls(all: Sysctls) -> Result<(Vec<(String, String)>, Sysctls), RequestError> {
    at_most("sysctls", all.len(), LIST_MAX)?;
    let mut network = Vec::new();
    let mut container = Sysctls::new();
    for (key, value) in all {
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        no_zero("sysctl", &value)?;
        if !key.split('.').all(part) {
            return Err(RequestError::Invalid("sysctl"));
        }
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
        if key.starts_with("net.") {
            network.push((key, value));
        } else if key == "kernel.sem" || ipc.iter().any(|prefix| key.starts_with(prefix)) {
            container.insert(key, value);
        } else {
            return Err(Unsupported::Sysctl(key.chars().take(NAME_BYTES_MAX).collect()).into());
        }
    }
    network.sort();
    Ok((network, container))
}

struct Parts<'a> {
    limits: &'a Limits,
    sysctl: Sysctls,
    masked: Vec<String>,
    readonly: Vec<String>,
    seccomp: Option<oci::LinuxSeccomp>,
}

fn linux_section(container: &ContainerId, parts: Parts<'_>) -> Result<Value, RequestError> {
    texts("masked paths", &parts.masked, LIST_MAX)?;
    texts("readonly paths", &parts.readonly, LIST_MAX)?;
    let mut section = json!({
        "cgroupsPath": format!("/{}/{container}", paths::CGROUP_PARENT),
        "resources": resources(parts.limits),
        "sysctl": parts.sysctl,
        "maskedPaths": parts.masked,
        "readonlyPaths": parts.readonly,
    });
    if let Some(filter) = parts.seccomp {
        section["seccomp"] = seccomp::parse(filter)?;
    }
    Ok(section)
}

/// Swap is left out: the guest has none. Processor numbers are left out: the
/// host's are not the guest's.
fn resources(limits: &Limits) -> Value {
    let mut json = Map::new();
    let mut put = |section: &str, entries: Vec<(&str, Option<Value>)>| {
        let set: Map<_, _> = entries
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect();
        if !set.is_empty() {
            json.insert(section.to_owned(), set.into());
        }
    };
    let Limits { memory, cpu, pids } = limits;
    put(
        "memory",
        vec![
            ("limit", memory.limit.map(Value::from)),
            ("reservation", memory.reservation.map(Value::from)),
        ],
    );
    put(
        "cpu",
        vec![
            ("shares", cpu.shares.map(Value::from)),
            ("quota", cpu.quota.map(Value::from)),
            ("period", cpu.period.map(Value::from)),
        ],
    );
    put("pids", vec![("limit", pids.map(Value::from))]);
    json.into()
}

impl ProcessSpec {
    pub(super) fn parse(process: oci::Process) -> Result<Self, RequestError> {
        let args = process.Args;
        if args.first().is_none_or(String::is_empty) {
            return Err(RequestError::Missing("process arguments"));
        }
        texts("process arguments", &args, LIST_MAX)?;
        texts("environment", &process.Env, LIST_MAX)?;
        let cwd = if process.Cwd.is_empty() {
            "/".to_owned()
        } else {
            process.Cwd
        };
        no_zero("working directory", &cwd)?;
        if !cwd.starts_with('/') {
            return Err(RequestError::Invalid("working directory"));
        }
        let user = process.User.into_option().unwrap_or_default();
        at_most("additional groups", user.AdditionalGids.len(), LIST_MAX)?;
        at_most("user name", user.Username.len(), NAME_BYTES_MAX)?;
        let mut env = process.Env;
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(PATH_DEFAULT.to_owned());
        }
        let mut json = json!({
            "terminal": process.Terminal,
            "user": { "uid": user.UID, "gid": user.GID, "additionalGids": user.AdditionalGids },
            "args": args,
            "env": env,
            "cwd": cwd,
        });
        if let Some(capabilities) = process.Capabilities.into_option() {
            json["capabilities"] = self::capabilities(capabilities);
        }
        if !process.Rlimits.is_empty() {
            json["rlimits"] = process.Rlimits.into_iter().map(rlimit).collect();
        }
        // The library loads a filter at another, later moment if this is `false`.
        if process.NoNewPrivileges {
            json["noNewPrivileges"] = true.into();
        }
        if (-1000..=1000).contains(&process.OOMScoreAdj) && process.OOMScoreAdj != 0 {
            json["oomScoreAdj"] = process.OOMScoreAdj.into();
        }
        let console = process.ConsoleSize.get_or_default();
        let side = |value: u32| u16::try_from(value).ok().filter(|&value| value != 0);
        Ok(Self {
            process: serde_json::from_value(json).map_err(RequestError::Spec)?,
            user_name: user.Username,
            terminal_size: side(console.Height).zip(side(console.Width)),
        })
    }

    /// Whether the process has a terminal.
    #[must_use]
    pub fn terminal(&self) -> bool {
        self.process.terminal().unwrap_or(false)
    }
}

fn capabilities(sets: oci::LinuxCapabilities) -> Value {
    json!({
        "bounding": sets.Bounding,
        "effective": sets.Effective,
        "inheritable": sets.Inheritable,
        "permitted": sets.Permitted,
        "ambient": sets.Ambient,
    })
}

fn rlimit(limit: oci::POSIXRlimit) -> Value {
    json!({ "type": limit.Type, "hard": limit.Hard, "soft": limit.Soft })
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
