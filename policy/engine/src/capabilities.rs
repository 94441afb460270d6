//! Which capabilities a container can have, whatever the host or the policy says.
//!
//! All containers share the guest's one kernel, and the guest proves what runs in it: what
//! would let a container change or read that kernel, or reach other containers past their
//! namespaces, is not given. The table is `docs/capabilities.md`.

use std::collections::BTreeSet;

/// Whether a container can have a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No container can.
    Never,
    /// None can, unless it asks for it by name and its policy grants it.
    GrantedOnly,
    /// Any can, unless it shares its processes with others.
    OwnProcesses,
    /// Any can.
    Free,
}

use Standing::{Free, GrantedOnly, Never, OwnProcesses};

/// Every capability of Linux 6.12 (`linux/capability.h`), by number.
pub const TABLE: [(&str, Standing); 41] = [
    ("CAP_CHOWN", Free),
    ("CAP_DAC_OVERRIDE", Free),
    // Opens files by handle, also those of other containers on the same file system.
    ("CAP_DAC_READ_SEARCH", GrantedOnly),
    ("CAP_FOWNER", Free),
    ("CAP_FSETID", Free),
    ("CAP_KILL", Free),
    ("CAP_SETGID", Free),
    ("CAP_SETUID", Free),
    ("CAP_SETPCAP", Free),
    ("CAP_LINUX_IMMUTABLE", Free),
    ("CAP_NET_BIND_SERVICE", Free),
    ("CAP_NET_BROADCAST", Free),
    ("CAP_NET_ADMIN", Free),
    ("CAP_NET_RAW", Free),
    ("CAP_IPC_LOCK", Free),
    ("CAP_IPC_OWNER", Free),
    ("CAP_SYS_MODULE", Never),
    ("CAP_SYS_RAWIO", Never),
    ("CAP_SYS_CHROOT", Free),
    ("CAP_SYS_PTRACE", OwnProcesses),
    ("CAP_SYS_PACCT", Free),
    ("CAP_SYS_ADMIN", Free),
    ("CAP_SYS_BOOT", Never),
    ("CAP_SYS_NICE", Free),
    ("CAP_SYS_RESOURCE", Free),
    // The guest's clock is that of every container, and of the agent.
    ("CAP_SYS_TIME", GrantedOnly),
    ("CAP_SYS_TTY_CONFIG", Free),
    ("CAP_MKNOD", Free),
    ("CAP_LEASE", Free),
    ("CAP_AUDIT_WRITE", Free),
    ("CAP_AUDIT_CONTROL", Never),
    ("CAP_SETFCAP", Free),
    ("CAP_MAC_OVERRIDE", Never),
    ("CAP_MAC_ADMIN", Never),
    ("CAP_SYSLOG", Never),
    ("CAP_WAKE_ALARM", Free),
    ("CAP_BLOCK_SUSPEND", Free),
    ("CAP_AUDIT_READ", Never),
    ("CAP_PERFMON", Never),
    ("CAP_BPF", Never),
    ("CAP_CHECKPOINT_RESTORE", GrantedOnly),
];

/// What may stand in a container's sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processes {
    /// The container sees its own processes only.
    Own,
    /// The container sees processes of others.
    Shared,
}

/// How a capability stands; one that nobody knows is given to nobody.
#[must_use]
pub fn standing(name: &str) -> Standing {
    let found = TABLE.iter().find(|(known, _)| *known == name);
    found.map_or(Never, |(_, standing)| *standing)
}

/// Whether a container gets it that asks for all.
fn given(name: &str, processes: Processes) -> bool {
    match standing(name) {
        Free => true,
        OwnProcesses => processes == Processes::Own,
        Never | GrantedOnly => false,
    }
}

/// What a container gets of a set that it asks for, where `all` says whether it asks for all
/// that there are.
///
/// # Errors
///
/// The name of one that is asked for by name and that containers do not get.
pub fn of_asked(
    names: impl IntoIterator<Item = String>,
    all: bool,
    processes: Processes,
) -> Result<BTreeSet<String>, String> {
    let names: BTreeSet<String> = names.into_iter().collect();
    if all {
        let given = |name: &String| given(name, processes);
        return Ok(names.into_iter().filter(given).collect());
    }
    let refused = |name: &&String| !given(name, processes) && standing(name) != GrantedOnly;
    match names.iter().find(refused) {
        Some(name) => Err(name.clone()),
        None => Ok(names),
    }
}

/// A privileged container asks for what its containerd has itself, which on some nodes lacks
/// one or another; nobody writes three quarters of them by name.
#[must_use]
pub fn asks_for_all(bounding: &[String]) -> bool {
    let asked = |name: &str| bounding.iter().any(|one| one == name);
    let known = TABLE.iter().filter(|(name, _)| asked(name)).count();
    known * 4 >= TABLE.len() * 3
}
