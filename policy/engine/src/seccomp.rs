//! The guest's default filter of system calls (`seccompProfile: RuntimeDefault`).
//!
//! Each release of a node's software makes a profile of its own, and a host can send any; a
//! pod with a policy gets this one instead, which is measured with the guest. It allows what
//! containerd 2.1 allows (`contrib/seccomp`), by the container's capabilities.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// System calls that every container may make.
const FOR_ALL: &str = include_str!("seccomp_calls.txt");

/// Further ones, by capability.
const BY_CAPABILITY: [(&str, &[&str]); 11] = [
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        ADMINISTRATES,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_CHROOT", &["chroot"]),
    (
        "CAP_SYS_NICE",
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise"],
    ),
    (
        "CAP_SYS_TIME",
        &["clock_settime", "clock_settime64", "settimeofday", "stime"],
    ),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];
const ADMINISTRATES: &str = "CAP_SYS_ADMIN";

/// Domains of execution that a process may choose (`personality(2)`): Linux, 32 bit, and what
/// asks for the present one.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_VSOCK: u64 = 40;
/// `CLONE_NEW*`: new namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;

/// The profile of a container with these capabilities, as the OCI runtime specification
/// writes it.
#[must_use]
pub fn runtime_default(capabilities: &BTreeSet<String>) -> Value {
    let has = |name: &str| capabilities.contains(name);
    let further = BY_CAPABILITY.iter().filter(|(name, _)| has(name));
    let further = further.flat_map(|(_, calls)| calls.iter().copied());
    let names: BTreeSet<&str> = FOR_ALL.split_whitespace().chain(further).collect();
    let mut rules = vec![allow(&names.iter().copied().collect::<Vec<_>>())];
    rules.push(allow_if("socket", "SCMP_CMP_NE", AF_VSOCK));
    let personality = |one| allow_if("personality", "SCMP_CMP_EQ", one);
    rules.extend(PERSONALITIES.map(personality));
    rules.push(allow(&["process_vm_readv", "process_vm_writev", "ptrace"]));
    if cfg!(target_arch = "x86_64") {
        rules.push(allow(&["arch_prctl", "modify_ldt"]));
    }
    if !has(ADMINISTRATES) {
        let mut clone = allow_if("clone", "SCMP_CMP_MASKED_EQ", NEW_NAMESPACES);
        if let Some(value) = clone.pointer_mut("/args/0") {
            value["valueTwo"] = 0.into();
        }
        rules.push(clone);
        let refused = json!({
            "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS,
        });
        rules.push(refused);
    }
    let architectures: &[&str] = if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": architectures,
        "syscalls": rules,
    })
}

fn allow(names: &[&str]) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW" })
}

fn allow_if(name: &str, op: &str, value: u64) -> Value {
    json!({
        "names": [name], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": value, "op": op }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(capabilities: &[&str], call: &str) -> bool {
        let held = capabilities.iter().map(|&one| one.to_owned()).collect();
        let profile = runtime_default(&held);
        let first = profile["syscalls"][0]["names"].as_array().unwrap().clone();
        first.contains(&json!(call))
    }

    #[test]
    fn what_reaches_the_kernel_needs_its_capability() {
        for (call, capability) in [
            ("mount", "CAP_SYS_ADMIN"),
            ("clone3", "CAP_SYS_ADMIN"),
            ("chroot", "CAP_SYS_CHROOT"),
            ("settimeofday", "CAP_SYS_TIME"),
            ("open_by_handle_at", "CAP_DAC_READ_SEARCH"),
        ] {
            assert!(!allows(&[], call), "{call}");
            assert!(allows(&[capability], call), "{call}");
        }
        for call in ["read", "execve", "futex"] {
            assert!(allows(&[], call), "{call}");
        }
        for call in ["kexec_load", "init_module", "iopl", "reboot", "add_key"] {
            assert!(!allows(&["CAP_SYS_ADMIN"], call), "{call}");
        }
    }

    /// A profile that containerd 2.1 made, recorded.
    #[test]
    fn it_is_what_containerd_makes_for_the_same_capabilities() {
        let text = include_str!("../../../tests/replay/recordings/bundles/2.1/users/strict.json");
        let bundle: Value = serde_json::from_str(text).unwrap();
        let recorded = bundle["linux"]["seccomp"].clone();
        let held = ["CAP_NET_BIND_SERVICE".to_owned()].into();
        let mut ours = runtime_default(&held);
        // The recording leaves a zero out.
        ours["syscalls"][9]["args"][0]
            .as_object_mut()
            .unwrap()
            .remove("valueTwo");
        if cfg!(target_arch = "x86_64") {
            let sorted = crate::workload::sorted;
            assert_eq!(sorted(ours), sorted(recorded));
        }
    }
}
