//! What differs from a plain node, and why: the one place that says so.
//!
//! `docs/compatibility.md` is made of it. A difference that is not here fails the replay, and
//! so does a row that differs no more.

/// What becomes of something that is not as on a plain node.
#[derive(Debug, Clone, Copy)]
pub enum Here {
    /// It is otherwise, and how.
    Otherwise(&'static str),
    /// It is refused, with this in the sentence.
    Refused(&'static str),
}

use Here::{Otherwise, Refused};

/// A row of the page.
#[derive(Debug)]
pub struct Difference {
    /// What differs, as a user would say it.
    pub what: &'static str,
    /// How, or with which sentence.
    pub here: Here,
    /// The facts that may differ for it: `pod/container/what`, with `*` for anything.
    pub facts: &'static [&'static str],
}

/// Something that is wrong, known, and being mended.
#[derive(Debug)]
pub struct Fault {
    /// What is wrong.
    pub sentence: &'static str,
    /// As in [`Difference::facts`].
    pub facts: &'static [&'static str],
}

/// What is compared, and by which facts.
pub const SAME: &[(&str, &[&str])] = &[
    (
        "ids, groups and umask of first processes and execs",
        &["*.Uid", "*.Gid", "*.Groups", "*.Umask"],
    ),
    (
        "their capabilities, `no_new_privs`, seccomp mode, ignored and blocked signals",
        &[
            "*.Cap*",
            "*.NoNewPrivs",
            "*.Seccomp",
            "*.SigIgn",
            "*.SigBlk",
            "*/exec.user-namespace",
        ],
    ),
    (
        "their environment, working directory and standard input",
        &["*.env.*", "*.directory", "*/first.stdin"],
    ),
    (
        "limits of memory, CPU and processes, also after a resize",
        &[
            "*/limit.*",
            "*/exec.limit.*",
            "*/exec.oom_score_adj",
            "*/resized",
        ],
    ),
    ("the processes that a container sees", &["*/processes"]),
    (
        "mounts: kind, access, flags, size, propagation",
        &["*/mount.*"],
    ),
    (
        "files in volumes: kinds, modes, owners, content, whether they can be written, and how they change",
        &["*/file.*", "*/write.*", "*/changed.*"],
    ),
    ("what the node sees of an emptyDir", &["*/node/*"]),
    ("devices", &["*/device.*"]),
    (
        "host name, sysctls, addresses, routes, `/etc/hosts` and `/etc/resolv.conf`",
        &["*/sysctl.*", "*/network.*"],
    ),
    (
        "state, exit code, reason, message, user and limits in a container's status; whether its grace period was kept",
        &["*/status.*", "*/start"],
    ),
    (
        "logs, output and input of execs, `attach`, termination messages",
        &["*/log.*", "*/did.*", "*/attached"],
    ),
];

/// What may differ.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "`hostNetwork`, `hostPID`, `hostIPC`",
        here: Refused("the pod uses the host's network, which a VM cannot: remove hostNetwork"),
        facts: &["host-namespaces/pod.refused"],
    },
    Difference {
        what: "a `hostPath` that is a device or a socket",
        here: Refused("of the host: a confidential pod cannot use it, so remove the volume"),
        facts: &["host-paths/one/start"],
    },
    Difference {
        what: "a capability that reaches the guest's kernel, added by name",
        here: Refused("capability 'CAP_SYS_TIME' is not given to containers: remove it"),
        facts: &["users/loose/start"],
    },
    Difference {
        what: "the sentence for a program that is not there",
        here: Otherwise(
            "names image, container and program as well; reason and exit code are the same",
        ),
        facts: &["ends/no-program/start", "ends/no-program/status.message"],
    },
    Difference {
        what: "`ulimit` where the pod says nothing",
        here: Otherwise(
            "1024 open files, at most 524288; processes and signals by the VM's memory. On a plain node it is containerd's own",
        ),
        facts: &[
            "*/exec.limit.open-files",
            "*/exec.limit.pending-signals",
            "*/exec.limit.processes",
        ],
    },
    Difference {
        what: "seccomp mode of what is `Unconfined` or privileged",
        here: Otherwise(
            "2: the guest's [floor](capabilities.md#other-floors) filters every process",
        ),
        facts: &["*/exec.Seccomp", "*/first.Seccomp"],
    },
    Difference {
        what: "flags of mounts",
        here: Otherwise("volumes and the kubelet's files are `nosuid,nodev`, the root is `nodev`"),
        facts: &["*/mount.*.flags"],
    },
    Difference {
        what: "propagation of the root, and of `HostToContainer`",
        here: Otherwise("private: no mount of the node can come in later"),
        facts: &["*/mount./.propagation", "*/mount./propagated.propagation"],
    },
    Difference {
        what: "masked and read-only paths",
        here: Otherwise(
            "always also `/proc/kcore`, `/proc/sysrq-trigger`, `/proc/sys/kernel/core_pattern` and `modprobe`",
        ),
        facts: &[
            "*/mount./proc/kcore.*",
            "*/mount./proc/sysrq-trigger.*",
            "*/mount./proc/sys/kernel/core_pattern.*",
            "*/mount./proc/sys/kernel/modprobe.*",
        ],
    },
    Difference {
        what: "where ConfigMaps, Secrets and `hostPath`s lie",
        here: Otherwise("copied into the guest's memory"),
        facts: &[
            "configuration/main/mount./etc/*.type",
            "host-paths*/mount.*.type",
            "host-paths*/mount.*.size",
        ],
    },
    Difference {
        what: "files in an emptyDir, as the node sees them",
        here: Otherwise(
            "none: they lie encrypted on the [scratch disk](configuration.md#scratch-disk)",
        ),
        facts: &["emptydirs/node/disk", "restarts/node/kept"],
    },
    Difference {
        what: "devices of a privileged container",
        here: Otherwise(
            "those that every container has; [others](capabilities.md#other-floors) cannot be opened",
        ),
        facts: &["privileged/main/device.*"],
    },
    Difference {
        what: "capabilities of a privileged container",
        here: Otherwise("[those that are free](capabilities.md)"),
        facts: &["privileged/main/*.Cap*"],
    },
    Difference {
        what: "masked paths of a privileged container",
        here: Otherwise("`/proc/keys` and `/sys/firmware`, as well as those above"),
        facts: &[
            "privileged/main/mount./proc/keys.*",
            "privileged/main/mount./sys/firmware.*",
        ],
    },
    Difference {
        what: "a capability that reaches other containers' processes, added by name to a container that sees them: `kubectl debug --target` with its profile `general`",
        here: Refused("capability 'CAP_SYS_PTRACE' is not given to containers: remove it"),
        facts: &["life/debugger/start"],
    },
    Difference {
        what: "what its target sees of such a container",
        here: Otherwise("nothing, as it was refused"),
        facts: &["life/main/processes"],
    },
    Difference {
        what: "the size of an emptyDir in memory without a limit",
        here: Otherwise("half of the VM's memory; on a plain node all that pods can have"),
        facts: &["emptydirs/main/mount./tmp.size"],
    },
    Difference {
        what: "standard input of a first process that nobody gives any",
        here: Otherwise("a pipe that has ended; on a plain node `/dev/null`"),
        facts: &["*/first.stdin"],
    },
    Difference {
        what: "group and further groups in a container's status",
        here: Otherwise(
            "numbers from 2147000000 on, where only the image knows them; in the container they are the real ones",
        ),
        facts: &["*/status.user"],
    },
    Difference {
        what: "the first process, with `shareProcessNamespace`",
        here: Otherwise("the guest's own `/pause`, as nobody and without capabilities"),
        facts: &["namespaces/*/first.*"],
    },
];

/// What may differ on containerd 1.7 besides.
pub const DIFFERENCES_OF_1_7: &[Difference] = &[Difference {
    what: "ports below 1024 and ping without a capability, on containerd 1.7",
    here: Otherwise("as on containerd 2: the guest sets the same two sysctls for every pod"),
    facts: &[
        "*/sysctl.net.ipv4.ip_unprivileged_port_start",
        "*/sysctl.net.ipv4.ping_group_range",
    ],
}];

/// What is wrong.
pub const FAULTS: &[Fault] = &[Fault {
    sentence: "Image volumes are refused.",
    facts: &["image-volume/main/refused"],
}];
