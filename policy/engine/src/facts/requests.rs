//! Requests about what is there: processes, streams, files, the network.

use std::net::IpAddr;

use super::{
    Fact, Facts,
    environment::{Known, environment},
    holds,
};
use crate::{
    asked::{AskedExec, AskedVolume},
    defaults,
    denied::{Code, Finding},
    document::{Container, Document},
    environment::PodFacts,
    pod::{Phase, PodStage, PodState},
};

/// The pod's memory for sharing, as every pod has it.
const SHARED_MEMORY_BYTES: u64 = 64 << 20;
/// Nothing, an orderly end, an end.
const SIGNALS: [i32; 3] = [0, 9, 15];
/// What a terminal of `kubectl exec -t` is.
const TERMINAL: (&str, &str) = ("TERM", "xterm");

pub(super) fn runs(state: &PodState) -> (&'static str, Fact) {
    (
        "pod_runs",
        holds(state.stage == PodStage::Runs, Code::PodState),
    )
}

pub(super) fn is_there(state: &PodState, id: &str) -> (&'static str, Fact) {
    let live = state.live.get(id);
    let made = live.is_some_and(|live| live.phase != Phase::Claimed);
    ("container_is_there", holds(made, Code::ContainerMissing))
}

pub(super) fn sandbox(state: &PodState, memory: &[AskedVolume<'_>]) -> Facts {
    let usual = |one: &AskedVolume<'_>| {
        one.path == "shm" && one.size == Some(SHARED_MEMORY_BYTES) && one.group.is_none()
    };
    vec![
        (
            "pod_is_new",
            holds(state.stage == PodStage::New, Code::PodState),
        ),
        (
            "shared_memory",
            holds(
                memory.len() <= 1 && memory.iter().all(usual),
                Code::SharedMemory,
            ),
        ),
    ]
}

/// What the host may do with a container; nothing is asked of the pause container's streams.
pub(super) fn of_one(
    document: &Document,
    state: &PodState,
    id: &str,
    container: Option<&Container>,
) -> Facts {
    let may = |allowed: fn(&Container) -> bool| container.is_none_or(allowed);
    vec![
        is_there(state, id),
        ("logs", holds(may(|one| one.logs), Code::Logs)),
        ("stdin", holds(may(|one| one.stdin), Code::Stdin)),
        (
            "termination_message",
            holds(may(|one| one.termination_message), Code::TerminationMessage),
        ),
        (
            "statistics",
            holds(document.grants.statistics, Code::Statistics),
        ),
    ]
}

pub(super) fn signal(container: Option<&Container>, signal: i32) -> Fact {
    let own = u8::try_from(signal).ok().zip(container);
    let declared = own.is_some_and(|(signal, container)| container.signals.contains(&signal));
    holds(SIGNALS.contains(&signal) || declared, Code::Signal)
}

/// A further process: one that the document names, as its container's first one is.
pub(super) fn exec(state: &PodState, exec: &AskedExec<'_>, container: Option<&Container>) -> Facts {
    let mut facts = vec![is_there(state, exec.container)];
    let (Some(container), Some(live)) = (container, state.live.get(exec.container)) else {
        return facts;
    };
    let also = (exec.terminal && !container.env.contains_key(TERMINAL.0)).then_some(TERMINAL);
    let known = Known {
        hostname: &state.hostname,
        facts: &PodFacts::default(),
        home: live.first.home.as_deref(),
        also,
    };
    let privileges = exec.no_new_privileges == container.rights.no_new_privileges;
    facts.extend([
        (
            "exec_arguments",
            holds(container.exec.contains(exec.args), Code::ExecUnknown),
        ),
        (
            "directory",
            holds(exec.directory == container.directory(), Code::Directory),
        ),
        (
            "exec_environment",
            environment(container, exec.environment, &known),
        ),
        (
            "exec_user",
            holds(exec.user == live.first.user, Code::ExecProcess),
        ),
        (
            "exec_privileges",
            holds(privileges && !exec.limited, Code::ExecProcess),
        ),
    ]);
    facts
}

/// A file that the document's mounts expect: `OWNER-16 HEX DIGITS-NAME` and below, where `NAME`
/// is the last part of where a container has it.
pub(super) fn copy_target(document: &Document, path: &str, is_link: bool) -> Fact {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let wrong = || Err(Finding::at(Code::CopyTarget, &["mounts", name_of(first)]));
    // The place itself is a file or a directory.
    if is_link && rest.is_empty() {
        return wrong();
    }
    let Some(name) = copied_name(first) else {
        return wrong();
    };
    let mut containers = document.containers.iter().chain(&document.ephemeral);
    if containers.any(|container| expects(container, name)) {
        Ok(())
    } else {
        wrong()
    }
}

fn name_of(first: &str) -> &str {
    copied_name(first).unwrap_or(first)
}

fn copied_name(first: &str) -> Option<&str> {
    // An owner's id may have hyphens, and so may the name: the digits tell them apart.
    let mut hyphens = first.match_indices('-').map(|(at, _)| at);
    hyphens.find_map(|at| {
        let digits = first.get(at + 1..at + 17)?;
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let name = first.get(at + 17..)?.strip_prefix('-')?;
        (at > 0 && digits.bytes().all(is_digit) && !name.is_empty()).then_some(name)
    })
}

fn expects(container: &Container, name: &str) -> bool {
    let own = container
        .mounts
        .iter()
        .filter(|mount| mount.volume.is_none());
    let usual = [
        defaults::HOSTS,
        defaults::HOSTNAME,
        defaults::RESOLV_CONF,
        container.termination_log(),
    ];
    let mut all = own.map(|mount| mount.at.as_str()).chain(usual);
    all.any(|at| at.trim_end_matches('/').rsplit('/').next() == Some(name))
}

/// Files of the host at a destination have the digest that the document says, if it says one.
pub(crate) fn of_files(container: &Container, at: &str, digest: &str) -> Facts {
    let mut mounts = container.mounts.iter();
    let declared = mounts.find(|mount| mount.at == at);
    let declared = declared.and_then(|mount| mount.digest.as_deref());
    let fact = match declared {
        Some(declared) if declared != digest => {
            Err(Finding::at(Code::FilesContent, &["mounts", at]))
        }
        _ => Ok(()),
    };
    vec![("files", fact)]
}

pub(super) fn no_loopback(names: &[&str], addresses: &[IpAddr]) -> Fact {
    let own = names.contains(&"lo") || addresses.iter().any(is_loopback);
    holds(!own, Code::Loopback)
}

fn is_loopback(address: &IpAddr) -> bool {
    let mapped = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    address.is_loopback() || mapped.is_some_and(|v4| v4.is_loopback())
}

/// Each is one that was set up before.
pub(super) fn interfaces(state: &PodState, devices: &[&str]) -> Fact {
    let known = |name: &&&str| state.has_interface(name);
    match devices.iter().find(|name| !known(name)) {
        Some(_) => Err(Finding::of(Code::Interface)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copys_name_follows_sixteen_digits_whatever_the_owner_is_called() {
        let digits = "0123456789abcdef";
        for (first, expected) in [
            (format!("c1-{digits}-hosts"), Some("hosts")),
            (format!("sand-box-{digits}-my-name"), Some("my-name")),
            (format!("-{digits}-hosts"), None),
            (format!("c1-{digits}-"), None),
            (format!("c1-{digits}hosts"), None),
            ("c1-0123456789ABCDEF-hosts".to_owned(), None),
            ("s1".to_owned(), None),
        ] {
            assert_eq!(copied_name(&first), expected, "{first}");
        }
    }

    #[test]
    fn the_guests_own_interface_is_told_by_name_and_by_address() {
        let address = |text: &str| [text.parse::<IpAddr>().unwrap()];
        assert!(no_loopback(&["eth0"], &address("10.0.0.1")).is_ok());
        assert!(no_loopback(&["lo"], &[]).is_err());
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(no_loopback(&["eth0"], &address(own)).is_err(), "{own}");
        }
    }
}
