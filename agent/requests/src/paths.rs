//! Where things are in the guest, as the Kata agent protocol fixes it (section 8.4).

/// Root of everything that belongs to the pod; emptied by `CreateSandbox`.
pub const STATE_ROOT: &str = "/run/kata-containers";
/// What the host may write files below with `CopyFile`.
pub const SHARED_ROOT: &str = "/run/kata-containers/shared/containers";
/// Mounts and files of the whole pod.
pub const SANDBOX_ROOT: &str = "/run/kata-containers/sandbox";
/// Pulled images, if there is no scratch disk.
pub const IMAGE_STORE: &str = "/run/kata-containers/image";
/// Name servers of the pod; `/etc/resolv.conf` leads here.
pub const RESOLV_CONF: &str = "/run/kata-containers/sandbox/resolv.conf";
/// State of the container library, one directory a container.
pub const RUNTIME_ROOT: &str = "/run/kata-agent/runtime";
/// Sockets on which terminals arrive.
pub const CONSOLE_ROOT: &str = "/run/kata-agent/console";
/// Where the pod's IPC and UTS namespaces are kept open.
pub const NAMESPACE_ROOT: &str = "/run/sandbox-ns";
/// The one cgroup hierarchy.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// The cgroup below which all containers' cgroups are.
pub const CGROUP_PARENT: &str = "kata";
/// Certificate authorities that registries are checked against.
pub const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The directory of a container.
#[must_use]
pub fn bundle(container: &agent_protocol::id::ContainerId) -> std::path::PathBuf {
    std::path::Path::new(STATE_ROOT).join(container)
}
