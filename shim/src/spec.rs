//! The OCI spec that the guest gets: what containerd wrote, less what belongs to
//! the host.
//!
//! Follows what Kata's shims send, so that policies made for them hold: no hooks (the
//! types in [`shim_oci`] never read any), no host namespaces, no host devices
//! or host-side limits, no labels of the host's SELinux. A pure function; mounts are
//! decided before, by [`shim_volumes`].

use std::path::Path;

use agent_protocol::{initdata, rpc::oci as guest};
use shim_oci::{self as oci, Role};
use shim_volumes::guest_pull::guest_rootfs;

const BUNDLE_PATH: &str = "io.katacontainers.pkg.oci.bundle_path";
const CONTAINER_TYPE: &str = "io.katacontainers.pkg.oci.container_type";
/// Annotations that configure the VM and would only confuse a policy.
const HOST_ONLY: [&str; 2] = [initdata::ANNOTATION, initdata::POLICY_ANNOTATION];
/// Namespaces that the guest decides by itself.
const GUEST_NAMESPACES: [&str; 3] = ["pid", "network", "time"];

/// What [`guest_spec`] needs beside the spec.
pub(crate) struct Trim<'a> {
    /// The container.
    pub(crate) id: &'a str,
    /// Its part in the pod.
    pub(crate) role: Role,
    /// Its bundle on the host, only named.
    pub(crate) bundle: &'a Path,
    /// Mounts with sources that exist in the guest.
    pub(crate) mounts: Vec<oci::Mount>,
    /// Drop the system call filter.
    pub(crate) drop_seccomp: bool,
    /// The container whose processes this one sees, if it is another one.
    pub(crate) processes_of: Option<&'a str>,
}

/// Makes the guest's spec.
pub(crate) fn guest_spec(spec: &oci::Spec, trim: Trim<'_>) -> guest::Spec {
    let mut annotations: std::collections::HashMap<String, String> = spec
        .annotations
        .iter()
        .filter(|(key, _)| !HOST_ONLY.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    annotations.insert(BUNDLE_PATH.to_owned(), trim.bundle.display().to_string());
    annotations.insert(
        CONTAINER_TYPE.to_owned(),
        trim.role.container_type().to_owned(),
    );
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    guest::Spec {
        Version: spec.oci_version.clone(),
        Process: spec.process.as_ref().map(process).into(),
        Root: Some(guest::Root {
            Path: guest_rootfs(trim.id),
            Readonly: readonly,
            ..guest::Root::default()
        })
        .into(),
        Hostname: spec.hostname.clone(),
        Mounts: trim.mounts.into_iter().map(mount).collect(),
        Annotations: annotations,
        Linux: spec
            .linux
            .as_ref()
            .map(|section| linux(section, trim.drop_seccomp, trim.processes_of))
            .into(),
        ..guest::Spec::default()
    }
}

/// A process as the guest gets it, for a container or an exec.
pub(crate) fn process(process: &oci::Process) -> guest::Process {
    let capabilities = process.capabilities.as_ref();
    guest::Process {
        Terminal: process.terminal,
        ConsoleSize: process
            .console_size
            .as_ref()
            .map(|size| guest::Box {
                Height: size.height,
                Width: size.width,
                ..guest::Box::default()
            })
            .into(),
        User: Some(guest::User {
            UID: process.user.uid,
            GID: process.user.gid,
            AdditionalGids: process.user.additional_gids.clone(),
            Username: process.user.username.clone(),
            ..guest::User::default()
        })
        .into(),
        Args: process.args.clone(),
        Env: process.env.clone(),
        Cwd: process.cwd.clone(),
        Capabilities: capabilities
            .map(|sets| guest::LinuxCapabilities {
                Bounding: sets.bounding.clone(),
                Effective: sets.effective.clone(),
                Inheritable: sets.inheritable.clone(),
                Permitted: sets.permitted.clone(),
                Ambient: sets.ambient.clone(),
                ..guest::LinuxCapabilities::default()
            })
            .into(),
        Rlimits: process.rlimits.iter().map(rlimit).collect(),
        NoNewPrivileges: process.no_new_privileges,
        ApparmorProfile: process.apparmor_profile.clone(),
        OOMScoreAdj: process.oom_score_adj.unwrap_or(0),
        ..guest::Process::default()
    }
}

fn rlimit(limit: &oci::Rlimit) -> guest::POSIXRlimit {
    guest::POSIXRlimit {
        Type: limit.kind.clone(),
        Hard: limit.hard,
        Soft: limit.soft,
        ..guest::POSIXRlimit::default()
    }
}

fn mount(mount: oci::Mount) -> guest::Mount {
    guest::Mount {
        destination: mount.destination,
        source: mount.source,
        type_: mount.kind,
        options: mount.options,
        ..guest::Mount::default()
    }
}

fn linux(linux: &oci::Linux, drop_seccomp: bool, processes_of: Option<&str>) -> guest::Linux {
    let namespaces = linux.namespaces.iter();
    let seccomp = linux.seccomp.as_ref().filter(|_| !drop_seccomp);
    guest::Linux {
        Sysctl: linux.sysctl.clone().into_iter().collect(),
        Resources: linux.resources.as_ref().map(resources).into(),
        CgroupsPath: linux.cgroups_path.clone(),
        Namespaces: namespaces
            .filter(|namespace| !GUEST_NAMESPACES.contains(&namespace.kind.as_str()))
            // The path is one of the host.
            .map(|namespace| guest_namespace(&namespace.kind, String::new()))
            .chain(processes_of.map(|id| guest_namespace("pid", guest_processes(id))))
            .collect(),
        Devices: linux.devices.iter().map(device).collect(),
        Seccomp: seccomp.map(filter).into(),
        RootfsPropagation: linux.rootfs_propagation.clone(),
        MaskedPaths: linux.masked_paths.clone(),
        ReadonlyPaths: linux.readonly_paths.clone(),
        ..guest::Linux::default()
    }
}

fn guest_namespace(kind: &str, path: String) -> guest::LinuxNamespace {
    guest::LinuxNamespace {
        Type: kind.to_owned(),
        Path: path,
        ..guest::LinuxNamespace::default()
    }
}

/// How the agent is told another container's process namespace.
fn guest_processes(id: &str) -> String {
    format!("/run/kata-containers/{id}/ns/pid")
}

/// Limits without those that name devices, CPUs or nodes of the host.
pub(crate) fn resources(resources: &oci::Resources) -> guest::LinuxResources {
    guest::LinuxResources {
        Memory: resources.memory.as_ref().map(memory).into(),
        CPU: resources.cpu.as_ref().map(cpu).into(),
        Pids: resources.pids.as_ref().map(pids).into(),
        HugepageLimits: resources
            .hugepage_limits
            .iter()
            .map(|limit| guest::LinuxHugepageLimit {
                Pagesize: limit.page_size.clone(),
                Limit: limit.limit,
                ..guest::LinuxHugepageLimit::default()
            })
            .collect(),
        ..guest::LinuxResources::default()
    }
}

fn pids(pids: &oci::Pids) -> guest::LinuxPids {
    guest::LinuxPids {
        Limit: pids.limit,
        ..guest::LinuxPids::default()
    }
}

fn memory(memory: &oci::Memory) -> guest::LinuxMemory {
    guest::LinuxMemory {
        Limit: memory.limit,
        Reservation: memory.reservation,
        Swap: memory.swap,
        Swappiness: memory.swappiness,
        DisableOOMKiller: memory.disable_oom_killer,
        ..guest::LinuxMemory::default()
    }
}

fn cpu(cpu: &oci::Cpu) -> guest::LinuxCPU {
    guest::LinuxCPU {
        Shares: cpu.shares,
        Quota: cpu.quota,
        Period: cpu.period,
        RealtimeRuntime: cpu.realtime_runtime,
        RealtimePeriod: cpu.realtime_period,
        ..guest::LinuxCPU::default()
    }
}

fn device(device: &oci::Device) -> guest::LinuxDevice {
    guest::LinuxDevice {
        Path: device.path.clone(),
        Type: device.kind.clone(),
        Major: device.major,
        Minor: device.minor,
        FileMode: device.file_mode,
        UID: device.uid,
        GID: device.gid,
        ..guest::LinuxDevice::default()
    }
}

fn filter(seccomp: &oci::Seccomp) -> guest::LinuxSeccomp {
    guest::LinuxSeccomp {
        DefaultAction: seccomp.default_action.clone(),
        Architectures: seccomp.architectures.clone(),
        Flags: seccomp.flags.clone(),
        Syscalls: seccomp.syscalls.iter().map(syscall).collect(),
        ..guest::LinuxSeccomp::default()
    }
}

fn syscall(rule: &oci::Syscall) -> guest::LinuxSyscall {
    let mut result = guest::LinuxSyscall {
        Names: rule.names.clone(),
        Action: rule.action.clone(),
        Args: rule
            .args
            .iter()
            .map(|arg| guest::LinuxSeccompArg {
                Index: arg.index,
                Value: arg.value,
                ValueTwo: arg.value_two,
                Op: arg.op.clone(),
                ..guest::LinuxSeccompArg::default()
            })
            .collect(),
        ..guest::LinuxSyscall::default()
    };
    if let Some(number) = rule.errno_ret {
        result.set_errnoret(number);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{
        "ociVersion": "1.1.0",
        "process": {
            "terminal": true,
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5]},
            "args": ["sh"], "env": ["A=b"], "cwd": "/",
            "capabilities": {"bounding": ["CAP_CHOWN"]},
            "selinuxLabel": "host_t", "oomScoreAdj": -998
        },
        "root": {"path": "rootfs", "readonly": true},
        "hooks": {"prestart": [{"path": "/evil"}]},
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.katacontainers.config.hypervisor.cc_init_data": "x"
        },
        "linux": {
            "mountLabel": "host_t",
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": 1024},
                "cpu": {"shares": 2, "cpus": "0-3", "mems": "0"},
                "pids": {"limit": 9},
                "blockIO": {"weight": 10}
            },
            "cgroupsPath": "/pod/c1",
            "namespaces": [
                {"type": "pid", "path": "/proc/7/ns/pid"},
                {"type": "ipc", "path": "/proc/7/ns/ipc"},
                {"type": "uts", "path": "/proc/7/ns/uts"},
                {"type": "network", "path": "/run/netns/x"},
                {"type": "mount"}, {"type": "cgroup"}
            ],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
            ]}
        }
    }"#;

    fn trimmed(drop_seccomp: bool) -> (oci::Spec, guest::Spec) {
        let spec: oci::Spec = serde_json::from_str(CONFIG).unwrap();
        let trim = Trim {
            id: "c1",
            role: Role::Container,
            bundle: Path::new("/bundle"),
            mounts: Vec::new(),
            drop_seccomp,
            processes_of: None,
        };
        let guest = guest_spec(&spec, trim);
        (spec, guest)
    }

    #[test]
    fn what_belongs_to_the_host_is_gone() {
        let (_, guest) = trimmed(true);
        assert!(guest.Hooks.is_none());
        assert!(guest.Solaris.is_none() && guest.Windows.is_none());
        let kinds: Vec<_> = guest
            .Linux
            .Namespaces
            .iter()
            .map(|n| n.Type.as_str())
            .collect();
        assert_eq!(kinds, ["ipc", "uts", "mount", "cgroup"]);
        assert!(guest.Linux.Namespaces.iter().all(|n| n.Path.is_empty()));
        let resources = &guest.Linux.Resources;
        assert!(resources.Devices.is_empty());
        assert!(resources.BlockIO.is_none());
        assert!(resources.Network.is_none());
        assert_eq!(resources.CPU.Cpus, "");
        assert_eq!(resources.CPU.Mems, "");
        assert!(guest.Linux.Seccomp.is_none());
        assert!(guest.Linux.IntelRdt.is_none());
        assert_eq!(guest.Linux.MountLabel, "");
        assert_eq!(guest.Process.SelinuxLabel, "");
        assert!(!guest.Annotations.contains_key(HOST_ONLY[0]));
    }

    #[test]
    fn another_containers_processes_are_named_as_in_the_guest() {
        let (spec, _) = trimmed(false);
        let linux = linux(&spec.linux.unwrap(), false, Some("target"));
        let mut processes = linux.Namespaces.iter().filter(|one| one.Type == "pid");
        let path = &processes.next().unwrap().Path;
        assert_eq!(path, "/run/kata-containers/target/ns/pid");
    }

    #[test]
    fn what_the_workload_needs_stays() {
        let (_, guest) = trimmed(true);
        assert_eq!(guest.Root.Path, "/run/kata-containers/c1/rootfs");
        assert!(guest.Root.Readonly);
        assert_eq!(guest.Process.Args, ["sh"]);
        assert_eq!(guest.Process.Env, ["A=b"]);
        assert_eq!(guest.Process.User.UID, 1000);
        assert_eq!(guest.Process.User.AdditionalGids, [5]);
        assert_eq!(guest.Process.Capabilities.Bounding, ["CAP_CHOWN"]);
        assert_eq!(guest.Process.OOMScoreAdj, -998);
        assert_eq!(guest.Linux.Resources.Memory.Limit, 1024);
        assert_eq!(guest.Linux.Resources.CPU.Shares, 2);
        assert_eq!(guest.Linux.Resources.Pids.Limit, 9);
        assert_eq!(guest.Annotations[BUNDLE_PATH], "/bundle");
        assert_eq!(guest.Annotations[CONTAINER_TYPE], "pod_container");
    }

    #[test]
    fn the_filter_passes_when_it_is_wanted() {
        let (_, guest) = trimmed(false);
        let rules = &guest.Linux.Seccomp.Syscalls;
        assert_eq!(rules.len(), 2);
        assert!(rules[0].ErrnoRet.is_none());
        assert!(rules[1].has_errnoret());
        assert_eq!(rules[1].errnoret(), 38);
    }
}
