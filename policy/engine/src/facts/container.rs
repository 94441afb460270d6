//! A container that is to be made, before its image is known.

use std::collections::BTreeMap;

use super::{Fact, Facts, holds, requests};
use crate::{
    asked::{AskedContainer, AskedProcesses, AskedVolume},
    denied::{Code, Finding},
    document::{Container, Document, Pod, PodName},
    pod::{PodState, number},
    workload::is_for_all,
};

pub(super) fn facts<'d>(
    document: &'d Document,
    state: &PodState,
    asked: &AskedContainer<'_>,
) -> (Facts, Option<&'d str>) {
    let mut facts = vec![
        requests::runs(state),
        ("pod_names", pod_names(&document.pod, state, asked)),
        ("id_is_new", holds(state.is_new(asked.id), Code::IdReused)),
    ];
    let Some(image) = asked.image else {
        facts.extend(of_pause(document, state, asked));
        return (facts, None);
    };
    let declared = number(document, asked.name);
    let container = declared.and_then(|number| crate::pod::at(document, number));
    let Some((number, container)) = declared.zip(container) else {
        facts.push((
            "container_is_declared",
            holds(false, Code::ContainerUnknown),
        ));
        return (facts, None);
    };
    facts.extend([
        ("container_is_declared", Ok(())),
        ("container_comes_now", state.comes_now(document, number)),
        ("image", self::image(&container.image, image)),
        ("sysctls", sysctls(&document.pod, asked)),
        ("volumes", volumes(&document.pod, container, &asked.volumes)),
        (
            "processes",
            processes(document, state, container, asked.processes),
        ),
    ]);
    (facts, Some(&container.name))
}

/// The pause container is the guest's own: once, and with the settings of the pod.
fn of_pause(document: &Document, state: &PodState, asked: &AskedContainer<'_>) -> Facts {
    let all = &document.pod.sysctls;
    let asked_for = |key: &String| asked.sysctls.iter().any(|(name, _)| name == key);
    let complete = match all.keys().find(|key| !asked_for(key)) {
        Some(missing) => Err(Finding::at(Code::Sysctl, &["pod", "sysctls", missing])),
        None => sysctls(&document.pod, asked),
    };
    vec![
        ("container_is_declared", Ok(())),
        (
            "container_comes_now",
            holds(!state.has_pause(), Code::ContainerRuns),
        ),
        ("image", Ok(())),
        ("sysctls", complete),
        ("volumes", holds(asked.volumes.is_empty(), Code::Volume)),
        ("processes", Ok(())),
    ]
}

/// The names are those of the document, and the same for each container.
fn pod_names(pod: &Pod, state: &PodState, asked: &AskedContainer<'_>) -> Fact {
    let named = match &pod.name {
        None => true,
        Some(PodName::Is(name)) => asked.pod_name == name,
        Some(PodName::StartsWith(base)) => {
            let rest = asked.pod_name.strip_prefix(base.as_str());
            let rest = rest.and_then(|rest| rest.strip_prefix('-'));
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain))
        }
    };
    let within = pod.namespace.as_ref();
    let within = within.is_none_or(|namespace| asked.namespace == namespace);
    let same = state.identity.as_ref().is_none_or(|identity| {
        (asked.pod_name, asked.namespace, asked.uid)
            == (
                identity.name.as_str(),
                identity.namespace.as_str(),
                identity.uid.as_str(),
            )
    });
    let wrong = |member| Err(Finding::at(Code::PodName, &["pod", member]));
    match (named && same, within) {
        (true, true) => Ok(()),
        (false, _) => wrong("name"),
        (true, false) => wrong("namespace"),
    }
}

/// The host's spelling of an image may have any tag or digest; which image is pulled is for the
/// document to say.
fn image(declared: &str, asked: &str) -> Fact {
    holds(repository(declared) == repository(asked), Code::ImageName)
}

/// Registry and repository, as Docker's short names mean them.
fn repository(reference: &str) -> String {
    let name = reference.split('@').next().unwrap_or_default();
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = match name.get(last..).and_then(|last| last.find(':')) {
        Some(colon) => name.get(..last + colon).unwrap_or(name),
        None => name,
    };
    let is_registry = |host: &str| host.contains(['.', ':']) || host == "localhost";
    match name.split_once('/') {
        Some(("docker.io" | "index.docker.io", rest)) if !rest.contains('/') => {
            format!("docker.io/library/{rest}")
        }
        Some(("index.docker.io", rest)) => format!("docker.io/{rest}"),
        Some((host, _)) if is_registry(host) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

fn sysctls(pod: &Pod, asked: &AskedContainer<'_>) -> Fact {
    let own = asked.sysctls.iter();
    let mut own = own.filter(|(key, value)| !is_for_all(key, value));
    let declared = |key: &str, value: &str| pod.sysctls.get(key).is_some_and(|one| one == value);
    match own.find(|(key, value)| !declared(key, value)) {
        Some((key, _)) => Err(Finding::at(Code::Sysctl, &["pod", "sysctls", key])),
        None => Ok(()),
    }
}

/// Each is one that the container mounts, of the declared kind and no larger.
fn volumes(pod: &Pod, container: &Container, asked: &[AskedVolume<'_>]) -> Fact {
    let mut seen = BTreeMap::new();
    for volume in asked {
        let name = volume_name(volume).unwrap_or_default();
        let wrong = || Err(Finding::at(Code::Volume, &["pod", "volumes", name]));
        let mounted = container.mounts.iter().any(|mount| {
            let part_of = mount.volume.as_deref().map(|of| of.split('/').next());
            part_of == Some(Some(name))
        });
        let Some(declared) = pod.volumes.get(name).filter(|_| mounted) else {
            return wrong();
        };
        let fits = match (declared.size, volume.size) {
            (None, _) => true,
            (Some(most), Some(size)) => size <= most,
            (Some(_), None) => false,
        };
        let group = volume
            .group
            .is_none_or(|group| container.user.groups.contains(&group));
        if declared.memory != volume.in_memory || !fits || !group || seen.insert(name, ()).is_some()
        {
            return wrong();
        }
    }
    Ok(())
}

/// The name of a volume, by its place: `ephemeral/NAME` in memory, else
/// `SANDBOX/rootfs/local/NAME`.
fn volume_name<'a>(volume: &AskedVolume<'a>) -> Option<&'a str> {
    let name = if volume.in_memory {
        volume.path.strip_prefix("ephemeral/")?
    } else {
        let (_, rest) = volume.path.split_once('/')?;
        rest.strip_prefix("rootfs/local/")?
    };
    (!name.contains('/')).then_some(name)
}

fn processes(
    document: &Document,
    state: &PodState,
    container: &Container,
    asked: AskedProcesses<'_>,
) -> Fact {
    let right = match (&container.target, asked) {
        (Some(target), AskedProcesses::Of(id)) => {
            let seen = state.container(document, id);
            seen.is_some_and(|seen| seen.name == *target)
        }
        (None, AskedProcesses::Pod) => document.pod.share_processes,
        (None, AskedProcesses::Own) => !document.pod.share_processes,
        (Some(_), _) | (None, AskedProcesses::Of(_)) => false,
    };
    holds(right, Code::Processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_the_same_image_and_another_repository_is_another() {
        let digest = format!("docker.io/library/nginx@sha256:{}", "0".repeat(64));
        for same in [
            "nginx",
            "nginx:1.27",
            "docker.io/nginx",
            "docker.io/library/nginx:1@sha256:ab",
            "index.docker.io/library/nginx",
        ] {
            assert!(image(&digest, same).is_ok(), "{same}");
        }
        for other in [
            "redis",
            "r.example/nginx",
            "r.example/library/nginx",
            "a/nginx",
            "localhost:5000/nginx",
        ] {
            assert!(image(&digest, other).is_err(), "{other}");
        }
        assert_eq!(repository("localhost:5000/a/b:1"), "localhost:5000/a/b");
    }

    #[test]
    fn a_volumes_name_is_the_last_part_of_its_place_and_nothing_else() {
        let of = |path, in_memory| {
            volume_name(&AskedVolume {
                path,
                in_memory,
                size: None,
                group: None,
            })
        };
        assert_eq!(of("ephemeral/v", true), Some("v"));
        assert_eq!(of("s1/rootfs/local/v", false), Some("v"));
        for (path, in_memory) in [
            ("shm", true),
            ("ephemeral/v/w", true),
            ("ephemeral/v", false),
            ("s1/rootfs/local/v/w", false),
            ("s1/other/v", false),
        ] {
            assert_eq!(of(path, in_memory), None, "{path}");
        }
    }
}
