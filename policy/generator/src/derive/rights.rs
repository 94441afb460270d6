//! What a container's processes may do.

use std::collections::{BTreeMap, BTreeSet};

use policy_engine::{
    DEFAULT_CAPABILITIES,
    capabilities::{Standing, standing},
    document::{Rights, Seccomp},
};

use super::Derivation;
use crate::pod::{Capabilities, Container, ProcMount, ProfileType, Sysctl};

/// The others of Linux (`linux/capability.h`).
const FURTHER: [&str; 27] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];
const ALL: &str = "CAP_ALL";
/// What the guest sets for every pod, whether it is asked for or not.
const FOR_ALL: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// The pod's settings of the kernel beyond those of every pod.
pub(super) fn sysctls(sysctls: &[Sysctl]) -> BTreeMap<String, String> {
    let pairs = sysctls.iter().map(|one| {
        let value = one.value.split_whitespace().collect::<Vec<_>>().join(" ");
        (one.name.replace('/', "."), one.value.clone(), value)
    });
    let beyond =
        pairs.filter(|(name, _, words)| !FOR_ALL.contains(&(name.as_str(), words.as_str())));
    beyond.map(|(name, value, _)| (name, value)).collect()
}

impl Derivation<'_> {
    pub(super) fn rights(&mut self, at: &str, container: &Container) -> Rights {
        let own = &container.security_context;
        if own.windows_options.0 {
            let message = "guests run Linux only: remove it";
            self.error(&format!("{at}.securityContext.windowsOptions"), message);
        }
        let privileged = own.privileged;
        let capabilities = match privileged {
            // All of them, whatever else is asked.
            true => None,
            false => self.capabilities(at, &own.capabilities),
        };
        Rights {
            privileged,
            capabilities,
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            seccomp: self.seccomp(at, container),
            unmasked: own.proc_mount == ProcMount::Unmasked,
        }
    }

    fn capabilities(&mut self, at: &str, asked: &Capabilities) -> Option<BTreeSet<String>> {
        let (add, drop) = (
            self.names(
                &format!("{at}.securityContext.capabilities.add"),
                &asked.add,
            ),
            self.names(
                &format!("{at}.securityContext.capabilities.drop"),
                &asked.drop,
            ),
        );
        let every = || {
            DEFAULT_CAPABILITIES
                .iter()
                .chain(&FURTHER)
                .map(|name| (*name).to_owned())
        };
        let default: BTreeSet<String> = DEFAULT_CAPABILITIES
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        let mut set = default.clone();
        // In containerd's order: all are added or dropped before single ones are.
        if add.contains(ALL) {
            set = every().collect();
        }
        if drop.contains(ALL) {
            set.clear();
        }
        set.extend(add.into_iter().filter(|name| name != ALL));
        set.retain(|name| !drop.contains(name));
        (set != default).then_some(set)
    }

    /// Whether the guest takes a capability that is asked for by name.
    fn is_given(&self, name: &str) -> bool {
        let shared = self.workload.template.spec.share_process_namespace;
        match standing(name) {
            Standing::Free | Standing::GrantedOnly => true,
            Standing::OwnProcesses => !shared,
            // What is no capability at all is told otherwise.
            Standing::Never => !FURTHER.contains(&name),
        }
    }

    fn names(&mut self, at: &str, names: &[String]) -> BTreeSet<String> {
        let mut known = BTreeSet::new();
        for (number, name) in names.iter().enumerate() {
            let full = name.to_uppercase();
            let full = match full.starts_with("CAP_") {
                true => full,
                false => format!("CAP_{full}"),
            };
            let mut all = DEFAULT_CAPABILITIES.iter().chain(&FURTHER).chain(&[ALL]);
            if !all.any(|one| *one == full) {
                let message = format!("{name} is no capability of Linux");
                self.error(&format!("{at}[{number}]"), message);
            }
            if at.ends_with(".add") && !self.is_given(&full) {
                let message = format!(
                    "{name} is not given to such a container: remove it (docs/capabilities.md)"
                );
                self.error(&format!("{at}[{number}]"), message);
            }
            known.insert(full);
        }
        known
    }

    fn seccomp(&mut self, at: &str, container: &Container) -> Seccomp {
        let own = &container.security_context;
        let pod = &self.workload.template.spec.security_context;
        let (field, profile) = match (&own.seccomp_profile, &pod.seccomp_profile) {
            (Some(profile), _) => (format!("{at}.securityContext.seccompProfile"), profile),
            (None, Some(profile)) => ("spec.securityContext.seccompProfile".to_owned(), profile),
            (None, None) => return Seccomp::Unconfined,
        };
        match profile.kind {
            // containerd gives a privileged container no filter.
            _ if own.privileged => Seccomp::Unconfined,
            ProfileType::RuntimeDefault => Seccomp::RuntimeDefault,
            ProfileType::Unconfined => Seccomp::Unconfined,
            ProfileType::Localhost => {
                let message = "a profile of the node's files cannot be bound yet: use \
                               RuntimeDefault, the guest's own";
                self.error(&field, message);
                Seccomp::Unconfined
            }
        }
    }
}
