//! The OCI spec of a container: the host's message becomes a spec of the OCI
//! runtime specification that holds only what the guest will do.
//!
//! What the host names and the guest decides: the root file system's path, the
//! cgroup's path and the namespaces' paths are not even read. Labels of security
//! modules that the guest does not have are dropped.

use std::collections::{BTreeSet, HashMap};

use agent_protocol::{id::ContainerId, path::GuestPath, rpc::oci};
use oci_spec::runtime::{Capability, Process, Spec};
use policy_engine::{
    AskedUser,
    kernel_paths::{self, Administrates},
};
use protobuf::MessageField;
use serde_json::{Map, Value, json};

use crate::{
    capabilities::{self, Processes},
    error::{RequestError, Unsupported},
    limits::Limits,
    mounts,
    parse::{at_most, no_zero, texts},
    paths, seccomp,
};

const LIST_MAX: usize = 8192;
const NAME_BYTES_MAX: usize = 256;
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the agent calls itself when it is the pause container's process.
const PAUSE_PROGRAM: &str = "/pause";
/// Nobody's files, and no capabilities: as Kubernetes' own pause image.
const PAUSE_USER: u32 = 65_535;
const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";

/// What a container runs and how.
#[derive(Debug)]
pub struct ContainerSpec {
    /// The spec, without namespaces: those are the pod's business.
    pub spec: Spec,
    /// Its first process.
    pub process: ProcessSpec,
    /// Settings of the pod's namespaces that the container asks for, sorted by key.
    pub sysctls: Vec<Sysctl>,
    /// Its limits.
    pub limits: Limits,
    /// What the node says the pod is called.
    pub pod: PodNames,
    /// What the pod calls the container; empty if the node does not say.
    pub name: String,
    /// Where in the container its last message is, if it has one.
    pub termination_path: Option<GuestPath>,
}

/// What Kubernetes calls a pod; empty where the node does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNames {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl PodNames {
    /// As containerd says it, in annotations.
    fn of(annotations: &HashMap<String, String>) -> Self {
        let value = |key: &str| {
            let value = annotations.get(&format!("io.kubernetes.cri.sandbox-{key}"));
            value.filter(|one| one.len() <= NAME_BYTES_MAX).cloned()
        };
        Self {
            name: value("name").unwrap_or_default(),
            namespace: value("namespace").unwrap_or_default(),
            uid: value("uid").unwrap_or_default(),
        }
    }
}

/// A setting of a namespace of the pod's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Its name, with dots.
    pub key: String,
    /// Its value, as written to the kernel.
    pub value: String,
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
    /// The pause container: the agent's own program without capabilities, environment or
    /// mounts but for an empty `/dev`, which the container library needs. Of the host's request for it only the pod's settings count; the rest
    /// is not even read, so that it cannot describe a program of its own.
    pub(super) fn pause(container: &ContainerId, spec: oci::Spec) -> Result<Self, RequestError> {
        let pod = PodNames::of(&spec.Annotations);
        let linux = spec.Linux.into_option().unwrap_or_default();
        let process = oci::Process {
            Args: vec![PAUSE_PROGRAM.to_owned()],
            User: MessageField::some(oci::User {
                UID: PAUSE_USER,
                GID: PAUSE_USER,
                ..Default::default()
            }),
            NoNewPrivileges: true,
            ..Default::default()
        };
        let allowed = oci::Spec {
            Process: MessageField::some(process),
            Root: MessageField::some(oci::Root {
                Readonly: true,
                ..Default::default()
            }),
            Mounts: vec![oci::Mount {
                destination: "/dev".to_owned(),
                type_: "tmpfs".to_owned(),
                source: "tmpfs".to_owned(),
                options: ["nosuid", "noexec", "mode=755", "size=64k"]
                    .map(Into::into)
                    .into(),
                ..Default::default()
            }],
            Linux: MessageField::some(oci::Linux {
                Sysctl: linux.Sysctl,
                ..Default::default()
            }),
            ..Default::default()
        };
        let pause = Self::parse(container, allowed, Processes::Own)?;
        Ok(Self { pod, ..pause })
    }

    pub(super) fn parse(
        container: &ContainerId,
        spec: oci::Spec,
        processes: Processes,
    ) -> Result<Self, RequestError> {
        refuse_hooks(spec.Hooks.get_or_default())?;
        let process = spec
            .Process
            .into_option()
            .ok_or(RequestError::Missing("process"))?;
        let process = ProcessSpec::parse(process, processes)?;
        let linux = spec.Linux.into_option().unwrap_or_default();
        refuse_user_namespace(&linux)?;
        refuse_devices(&linux.Devices)?;
        let limits = Limits::parse(linux.Resources.get_or_default())?;
        let sysctls = sysctls(linux.Sysctl)?;
        let administrates = process.administrates();
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
                    masked: linux.MaskedPaths,
                    readonly: linux.ReadonlyPaths,
                    administrates,
                    seccomp: linux.Seccomp.into_option(),
                },
            )?,
        });
        Ok(Self {
            spec: serde_json::from_value(json).map_err(RequestError::Spec)?,
            process,
            sysctls,
            limits,
            pod: PodNames::of(&spec.Annotations),
            name: name_of(&spec.Annotations),
            termination_path: spec
                .Annotations
                .get(TERMINATION_PATH)
                .and_then(|path| GuestPath::parse(path).ok()),
        })
    }
}

fn name_of(annotations: &HashMap<String, String>) -> String {
    let name = annotations.get("io.kubernetes.cri.container-name");
    let name = name.filter(|name| name.len() <= NAME_BYTES_MAX);
    name.cloned().unwrap_or_default()
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
        .find(|device| device.Type == "b" || !DEFAULT.contains(&(device.Major, device.Minor)))
    {
        Some(device) => {
            let path = device.Path.chars().take(NAME_BYTES_MAX).collect();
            Err(Unsupported::Device(path).into())
        }
        None => Ok(()),
    }
}

/// Settings of the pod's network and of its IPC namespace, which the guest makes; others
/// would be the guest's own.
fn sysctls(all: HashMap<String, String>) -> Result<Vec<Sysctl>, RequestError> {
    at_most("sysctls", all.len(), LIST_MAX)?;
    let mut sysctls = all
        .into_iter()
        .map(|(key, value)| sysctl(key, value))
        .collect::<Result<Vec<_>, _>>()?;
    sysctls.sort();
    Ok(sysctls)
}

fn sysctl(key: String, value: String) -> Result<Sysctl, RequestError> {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    no_zero("sysctl", &value)?;
    at_most("sysctl", value.len(), NAME_BYTES_MAX)?;
    if !key.split('.').all(part) {
        return Err(RequestError::Invalid("sysctl"));
    }
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if key.starts_with("net.")
        || key == "kernel.sem"
        || ipc.iter().any(|prefix| key.starts_with(prefix))
    {
        Ok(Sysctl { key, value })
    } else {
        Err(Unsupported::Sysctl(key.chars().take(NAME_BYTES_MAX).collect()).into())
    }
}

struct Parts<'a> {
    limits: &'a Limits,
    masked: Vec<String>,
    readonly: Vec<String>,
    administrates: Administrates,
    seccomp: Option<oci::LinuxSeccomp>,
}

fn linux_section(container: &ContainerId, parts: Parts<'_>) -> Result<Value, RequestError> {
    texts("masked paths", &parts.masked, LIST_MAX)?;
    texts("readonly paths", &parts.readonly, LIST_MAX)?;
    let mut section = json!({
        "cgroupsPath": format!("/{}/{container}", paths::CGROUP_PARENT),
        "resources": resources(parts.limits),
        "maskedPaths": kernel_paths::masked(parts.masked, parts.administrates),
        "readonlyPaths": kernel_paths::read_only(parts.readonly, parts.administrates),
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

/// The variables without those that a later one overwrites, as containerd leaves them where a pod
/// overwrites a variable of its image: what is judged and measured is what the program finds.
fn last_of_each(mut entries: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    entries.reverse();
    entries.retain(|entry| seen.insert(entry.split('=').next().unwrap_or_default().to_owned()));
    entries.reverse();
    entries
}

impl ProcessSpec {
    pub(super) fn parse(process: oci::Process, processes: Processes) -> Result<Self, RequestError> {
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
        let mut env = last_of_each(process.Env);
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
            json["capabilities"] = capabilities::parse(capabilities, processes)?;
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

    /// Who is to run it, as the request says it.
    #[must_use]
    pub fn asked_user(&self) -> AskedUser {
        let user = self.process.user();
        let groups = user.additional_gids().iter().flatten();
        AskedUser {
            uid: user.uid(),
            gid: user.gid(),
            groups: groups.copied().collect(),
            name: self.user_name.clone(),
        }
    }

    fn administrates(&self) -> Administrates {
        let bounding = self.process.capabilities().as_ref();
        let bounding = bounding.and_then(|sets| sets.bounding().as_ref());
        if bounding.is_some_and(|set| set.contains(&Capability::SysAdmin)) {
            Administrates::Yes
        } else {
            Administrates::No
        }
    }

    /// Whether the process has a terminal.
    #[must_use]
    pub fn terminal(&self) -> bool {
        self.process.terminal().unwrap_or(false)
    }
}

fn rlimit(limit: oci::POSIXRlimit) -> Value {
    json!({ "type": limit.Type, "hard": limit.Hard, "soft": limit.Soft })
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
