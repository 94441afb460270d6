//! Mounts: exactly those of the document and of every container, in their order.

use super::Fact;
use crate::{
    denied::{Code, Finding},
    document::{Container, Pod},
    environment::PodFacts,
    expected::{HOST_FILES, NormalMount, TERMINATION_MESSAGE},
    workload::{Part, Workload},
};

pub(super) fn mounts(
    pod: &Pod,
    container: &Container,
    workload: &Workload,
    facts: &PodFacts,
) -> Fact {
    let found: Vec<NormalMount> = workload
        .field(Part::Mounts, "mounts")
        .cloned()
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default();
    let expected = container.expected_mounts(pod, facts);
    let at = |all: &[NormalMount], place: &str| all.iter().any(|one| one.destination == place);
    let wrong = |code, mount: &NormalMount| {
        let path: &[&str] = &["mounts", &mount.destination];
        Err(Finding::at(code, path))
    };
    if let Some(unknown) = found.iter().find(|one| !at(&expected, &one.destination)) {
        return wrong(Code::MountUnknown, unknown);
    }
    if let Some(missing) = expected.iter().find(|one| !at(&found, &one.destination)) {
        return wrong(Code::MountMissing, missing);
    }
    for (one, other) in expected.iter().zip(&found) {
        if one.destination != other.destination {
            return wrong(Code::MountOrder, other);
        }
        // Where the node does not tell the guest of the message, its file is a copy.
        let is_copy = one.what == TERMINATION_MESSAGE && other.what == HOST_FILES;
        if one.what != other.what && !is_copy {
            return wrong(Code::MountSource, other);
        }
        let same = if is_copy {
            other.options.is_empty()
        } else {
            one.options == other.options
        };
        if !same {
            return wrong(Code::MountOptions, other);
        }
    }
    // One place twice.
    match found.get(expected.len()) {
        Some(further) => wrong(Code::MountOrder, further),
        None => Ok(()),
    }
}
