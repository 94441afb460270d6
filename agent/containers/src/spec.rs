//! The spec that a container runs by: completed, measured, written.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use agent_evidence::{
    Sha256Digest,
    log::{ContainerDigests, ContainerEntry, ExecDigests},
};
use agent_measured::{Measured, NoteError};
use agent_protocol::id::ContainerId;
use agent_workload::{Described, bounded};
use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, Process as SpecProcess,
    Spec,
};

use crate::namespaces;

/// Measures what a container is, with what was let pass. Returns its digests.
///
/// # Errors
///
/// When it cannot be measured.
pub(super) fn settle(
    log: &Measured,
    (id, image): (&ContainerId, Option<&str>),
    described: Described,
    marks: Vec<String>,
) -> Result<ContainerDigests, NoteError> {
    let Described {
        digests, chosen, ..
    } = described;
    let marks = bounded(marks);
    let entry = |count| ContainerEntry {
        container: id.to_string(),
        image: image.map(str::to_owned),
        digests,
        marks: marks.clone(),
        chosen,
        count,
    };
    log.note_counted(container_identity(image, &digests, &marks), entry)?;
    Ok(digests)
}

/// Writes it into the container's directory for the container library: the spec that was
/// measured, with the sources of its mounts pinned.
pub(super) fn write_spec(bundle: &Path, spec: &Spec) -> io::Result<()> {
    write_private(&bundle.join("config.json"), &serde_json::to_vec(spec)?)
}

/// What tells a container in the log from others.
fn container_identity(
    image: Option<&str>,
    digests: &ContainerDigests,
    marks: &[String],
) -> Sha256Digest {
    let ContainerDigests {
        process,
        environment,
        mounts,
        rights,
        settings,
    } = digests;
    let image = Sha256Digest::of(&[image.unwrap_or_default().as_bytes()]);
    let marks = Sha256Digest::of(&[marks.join("\n").as_bytes()]);
    Sha256Digest::of(&[
        b"container",
        &image.0,
        &process.0,
        &environment.0,
        &mounts.0,
        &rights.0,
        &settings.0,
        &marks.0,
    ])
}

/// What tells a further process in the log from others: itself, and its container.
pub(super) fn exec_identity(container: &ContainerDigests, exec: &ExecDigests) -> Sha256Digest {
    let of = container_identity(None, container, &[]);
    Sha256Digest::of(&[
        b"exec",
        &of.0,
        &exec.process.0,
        &exec.environment.0,
        &exec.rights.0,
    ])
}

/// What a process keeps when its request names no capabilities: none. The library
/// leaves a set alone that is not named, so each is named.
pub(super) fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(Some(Capabilities::new()));
    none.set_effective(Some(Capabilities::new()));
    none.set_inheritable(Some(Capabilities::new()));
    none.set_permitted(Some(Capabilities::new()));
    none.set_ambient(Some(Capabilities::new()));
    none
}

/// The sets that were asked for, without what is not in the bounding set of `most`.
pub(super) fn within(asked: &LinuxCapabilities, most: &LinuxCapabilities) -> LinuxCapabilities {
    let bounding = most.bounding().clone().unwrap_or_default();
    let within = |set: &Option<Capabilities>| {
        let asked = set.iter().flatten().copied();
        Some(asked.filter(|one| bounding.contains(one)).collect())
    };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(within(asked.bounding()));
    sets.set_effective(within(asked.effective()));
    sets.set_inheritable(within(asked.inheritable()));
    sets.set_permitted(within(asked.permitted()));
    sets.set_ambient(within(asked.ambient()));
    sets
}

/// Adds what the guest decides: the process, and every namespace but the network's.
pub(super) fn complete_spec(spec: &mut Spec, mut process: SpecProcess, join: Option<PathBuf>) {
    if process.capabilities().is_none() {
        process.set_capabilities(Some(no_capabilities()));
    }
    spec.set_process(Some(process));
    let namespaces = [
        (LinuxNamespaceType::Mount, None),
        (LinuxNamespaceType::Cgroup, None),
        (LinuxNamespaceType::Pid, join),
        (LinuxNamespaceType::Ipc, Some(namespaces::ipc())),
        (LinuxNamespaceType::Uts, Some(namespaces::uts())),
    ];
    let namespaces = namespaces.map(|(kind, path): (_, Option<PathBuf>)| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace.set_path(path);
        namespace
    });
    if let Some(linux) = spec.linux_mut() {
        linux.set_namespaces(Some(namespaces.into()));
    }
}

/// The program that a process runs, as its spec names it.
pub(super) fn executable_of(process: Option<&SpecProcess>) -> String {
    let arguments = process.and_then(|process| process.args().as_ref());
    arguments
        .and_then(|arguments| arguments.first())
        .cloned()
        .unwrap_or_default()
}

/// Writes a file that only the agent can read.
pub(super) fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut file, text)
}

#[cfg(test)]
mod tests {
    use agent_workload::workload;
    use oci_spec::runtime::Capability;
    use policy_engine::environment::PodFacts;

    use super::*;

    #[test]
    fn a_process_without_capabilities_names_every_set_and_none_has_any() {
        let mut spec = Spec::default();
        let mut process = SpecProcess::default();
        process.set_capabilities(None);
        complete_spec(&mut spec, process, None);
        let json = serde_json::to_value(&spec).unwrap();
        let sets = json["process"]["capabilities"].as_object().unwrap();
        assert_eq!(sets.len(), 5, "{sets:?}");
        assert!(
            sets.values().all(|set| set == &serde_json::json!([])),
            "{sets:?}"
        );
    }

    #[test]
    fn a_further_process_has_no_capability_that_the_first_cannot_have() {
        let set = |names: &[Capability]| Some(names.iter().copied().collect::<Capabilities>());
        let mut most = no_capabilities();
        most.set_bounding(set(&[Capability::Chown, Capability::Kill]));
        let mut asked = no_capabilities();
        asked.set_bounding(set(&[Capability::Chown, Capability::SysAdmin]));
        asked.set_effective(set(&[Capability::Kill, Capability::SysPtrace]));
        let given = within(&asked, &most);
        assert_eq!(given.bounding(), &set(&[Capability::Chown]));
        assert_eq!(given.effective(), &set(&[Capability::Kill]));
        assert_eq!(given.ambient(), &set(&[]));
    }

    #[test]
    fn a_container_has_its_own_mounts_and_never_its_own_network() {
        let mut spec = Spec::default();
        complete_spec(
            &mut spec,
            SpecProcess::default(),
            Some("/proc/1/fd/7".into()),
        );
        let linux = spec.linux().as_ref().unwrap();
        let kinds: Vec<_> = linux
            .namespaces()
            .iter()
            .flatten()
            .map(|one| one.typ())
            .collect();
        assert!(kinds.contains(&LinuxNamespaceType::Mount));
        assert!(!kinds.contains(&LinuxNamespaceType::Network));
        assert_eq!(kinds.len(), 5);
    }

    #[test]
    fn the_log_holds_nothing_of_an_environment() {
        let mut process = SpecProcess::default();
        process.set_env(Some(vec!["KEY=PLANTED".to_owned()]));
        process.set_args(Some(vec!["sh".to_owned(), "PLANTED".to_owned()]));
        let mut spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.2.0"}"#).unwrap();
        spec.set_process(Some(process));
        let log = Measured::default();
        let id = ContainerId::parse("no-such-container").unwrap();
        let described = workload(&spec, &[], &[], &PodFacts::default()).unwrap();
        settle(&log, (&id, None), described, Vec::new()).unwrap();
        let events = log.so_far();
        assert_eq!(events.events().len(), 1);
        assert!(!format!("{events:?}").contains("PLANTED"));
    }
}
