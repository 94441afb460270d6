//! What every container has that a document does not name, as containerd 1.7 to 2.1 and
//! Kubernetes make it; from the recordings in `tests/replay`.

/// A file system of the kernel's that every container has.
pub(crate) struct KernelMount {
    pub(crate) at: &'static str,
    pub(crate) kind: &'static str,
    /// Sorted, without those that say what the guest does anyway.
    pub(crate) options: &'static [&'static str],
    /// A privileged container can write to it.
    pub(crate) read_only_unless_privileged: bool,
}

/// In their order; they come before all others.
pub(crate) const KERNEL_MOUNTS: [KernelMount; 6] = [
    KernelMount {
        at: "/proc",
        kind: "proc",
        options: &["noexec", "nosuid"],
        read_only_unless_privileged: false,
    },
    KernelMount {
        at: "/dev",
        kind: "tmpfs",
        options: &["mode=755", "nosuid", "size=65536k"],
        read_only_unless_privileged: false,
    },
    KernelMount {
        at: "/dev/pts",
        kind: "devpts",
        options: &[
            "gid=5",
            "mode=0620",
            "newinstance",
            "noexec",
            "nosuid",
            "ptmxmode=0666",
        ],
        read_only_unless_privileged: false,
    },
    KernelMount {
        at: "/dev/mqueue",
        kind: "mqueue",
        options: &["noexec", "nosuid"],
        read_only_unless_privileged: false,
    },
    KernelMount {
        at: "/sys",
        kind: "sysfs",
        options: &["noexec", "nosuid"],
        read_only_unless_privileged: true,
    },
    KernelMount {
        at: "/sys/fs/cgroup",
        kind: "cgroup",
        options: &["noexec", "nosuid"],
        read_only_unless_privileged: true,
    },
];

/// Files that Kubernetes puts into every container, by what follows the volumes of the pod.
pub(crate) const HOSTS: &str = "/etc/hosts";
pub(crate) const HOSTNAME: &str = "/etc/hostname";
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
pub(crate) const SHARED_MEMORY: &str = "/dev/shm";
pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";

/// What containerd gives every container.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What containerd masks for containers that are not privileged.
pub(crate) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What it makes read-only for them.
pub(crate) const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Namespaces that the guest gives a container, and whose each is.
pub(crate) fn namespaces(shares_processes: bool) -> [&'static str; 5] {
    [
        "cgroup: own",
        "ipc: the pod's",
        "mount: own",
        if shares_processes {
            "pid: the pod's"
        } else {
            "pid: own"
        },
        "uts: the pod's",
    ]
}
