//! What a pod asks for and cannot have here, and what it says without effect.
//!
//! A field that would change what the workload sees is refused, one that speaks of the
//! cluster is listed once and ignored: silence would let a probe or a host alias look
//! as if it worked.

use crate::pod::{Container, Pod, RestartPolicy, Volume};

/// Why a pod cannot be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PodError {
    #[error("the pod has no metadata.name")]
    NoName,
    #[error("pod name {0} is not lower-case letters, digits, - and . only, at most 253 of them")]
    Name(String),
    #[error("the pod has no containers")]
    NoContainers,
    #[error("a container of the pod has no name")]
    NoContainerName,
    #[error("container name {0} is not lower-case letters, digits and - only, at most 63 of them")]
    ContainerName(String),
    #[error("two containers are called {0}")]
    SameName(String),
    #[error("container {0} has no image")]
    NoImage(String),
    #[error("{0} cannot be given to a pod in a VM of its own: remove it")]
    HostNamespace(&'static str),
    #[error(
        "init container {0} is to run beside the others (restartPolicy Always), which run does not do: move it to containers"
    )]
    Sidecar(String),
    #[error(
        "volume {name} is of type {kind}, which needs a cluster or the node's files: use configMap, secret, downwardAPI, projected, emptyDir or hostPath"
    )]
    VolumeType { name: String, kind: String },
    #[error("volume {0} has no source, or more than one")]
    VolumeSource(String),
    #[error("volume {volume} has medium {medium}, only Memory and the default exist here")]
    Medium { volume: String, medium: String },
    #[error("container {container} mounts volume {volume}, which the pod does not have")]
    NoVolume { container: String, volume: String },
    #[error("container {container} mounts volume {volume} at {path}, which is not absolute")]
    MountPath {
        container: String,
        volume: String,
        path: String,
    },
    #[error(
        "container {container} mounts {path} of volume {volume}: a subPath stays below the volume, and subPathExpr is not supported"
    )]
    SubPath {
        container: String,
        volume: String,
        path: String,
    },
}

/// Accepts a pod that can be run.
pub(crate) fn check(pod: &Pod) -> Result<(), PodError> {
    let name = &pod.metadata.name;
    if name.is_empty() {
        return Err(PodError::NoName);
    }
    if !is_dns_name(name, 253, true) {
        return Err(PodError::Name(name.clone()));
    }
    let spec = &pod.spec;
    for (there, field) in [
        (spec.host_network, "hostNetwork"),
        (spec.host_pid, "hostPID"),
        (spec.host_ipc, "hostIPC"),
    ] {
        if there {
            return Err(PodError::HostNamespace(field));
        }
    }
    spec.volumes.iter().try_for_each(check_volume)?;
    if spec.containers.is_empty() {
        return Err(PodError::NoContainers);
    }
    let mut seen = Vec::new();
    for container in spec.init_containers.iter().chain(&spec.containers) {
        check_container(container, &spec.volumes)?;
        if seen.contains(&container.name.as_str()) {
            return Err(PodError::SameName(container.name.clone()));
        }
        seen.push(&container.name);
    }
    let sidecar = |c: &&Container| c.restart_policy == Some(RestartPolicy::Always);
    match spec.init_containers.iter().find(sidecar) {
        Some(container) => Err(PodError::Sidecar(container.name.clone())),
        None => Ok(()),
    }
}

fn check_volume(volume: &Volume) -> Result<(), PodError> {
    let name = &volume.name;
    if let Some(kind) = volume.without_effect().first() {
        return Err(PodError::VolumeType {
            name: name.clone(),
            kind: camel_case(kind),
        });
    }
    let sources = [
        volume.config_map.is_some(),
        volume.downward_api.is_some(),
        volume.empty_dir.is_some(),
        volume.host_path.is_some(),
        volume.projected.is_some(),
        volume.secret.is_some(),
    ];
    if sources.iter().filter(|there| **there).count() != 1 || !is_dns_name(name, 63, false) {
        return Err(PodError::VolumeSource(name.clone()));
    }
    match &volume.empty_dir {
        Some(e) if !e.medium.is_empty() && e.medium != "Memory" => Err(PodError::Medium {
            volume: name.clone(),
            medium: e.medium.clone(),
        }),
        _ => Ok(()),
    }
}

fn check_container(container: &Container, volumes: &[Volume]) -> Result<(), PodError> {
    let name = &container.name;
    if name.is_empty() {
        return Err(PodError::NoContainerName);
    }
    if !is_dns_name(name, 63, false) {
        return Err(PodError::ContainerName(name.clone()));
    }
    if container.image.is_empty() {
        return Err(PodError::NoImage(name.clone()));
    }
    for mount in &container.volume_mounts {
        let (container, volume) = (name.clone(), mount.name.clone());
        if !volumes.iter().any(|v| v.name == mount.name) {
            return Err(PodError::NoVolume { container, volume });
        }
        if !mount.mount_path.starts_with('/') {
            let path = mount.mount_path.clone();
            return Err(PodError::MountPath {
                container,
                volume,
                path,
            });
        }
        if !mount.sub_path_expr.is_empty() || !is_below(&mount.sub_path) {
            let path = format!("{}{}", mount.sub_path, mount.sub_path_expr);
            return Err(PodError::SubPath {
                container,
                volume,
                path,
            });
        }
    }
    Ok(())
}

/// A relative path without `..`; the empty one is the directory itself.
pub(crate) fn is_below(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

fn is_dns_name(name: &str, most: usize, dots: bool) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-') || dots && b == b'.';
    let inner = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let bytes = name.as_bytes();
    bytes.len() <= most
        && bytes.iter().all(|b| allowed(*b))
        && inner(bytes.first())
        && inner(bytes.last())
}

/// The fields that have no effect, as paths.
pub(crate) fn without_effect(pod: &Pod) -> Vec<String> {
    let spec = &pod.spec;
    let mut paths = Vec::new();
    let mut add = |at: &str, names: Vec<&str>| {
        paths.extend(names.iter().map(|n| format!("{at}{}", camel_case(n))));
    };
    add("spec.", spec.without_effect());
    add(
        "spec.securityContext.",
        spec.security_context.without_effect(),
    );
    for (list, containers) in [
        ("initContainers", &spec.init_containers),
        ("containers", &spec.containers),
    ] {
        for (number, container) in containers.iter().enumerate() {
            let at = format!("spec.{list}[{number}].");
            add(&at, container.without_effect());
            let security = container.security_context.without_effect();
            add(&format!("{at}securityContext."), security);
        }
    }
    for (number, volume) in spec.volumes.iter().enumerate() {
        for projection in volume.projected.iter().flat_map(|p| &p.sources) {
            let names = projection.without_effect();
            add(&format!("spec.volumes[{number}].projected."), names);
        }
    }
    paths
}

fn camel_case(name: &str) -> String {
    let mut camel = String::new();
    let mut upper = false;
    for c in name.trim_start_matches("r#").chars() {
        if c == '_' {
            upper = true;
        } else {
            camel.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{EmptyDir, Known, VolumeMount};

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = "p".to_owned();
        pod.spec.containers = vec![Container {
            name: "c".to_owned(),
            image: "i".to_owned(),
            ..Container::default()
        }];
        pod.spec.volumes = vec![Volume {
            name: "v".to_owned(),
            empty_dir: Some(EmptyDir::default()),
            ..Volume::default()
        }];
        pod
    }

    fn mounted(name: &str, path: &str, sub_path: &str) -> Vec<VolumeMount> {
        vec![VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            sub_path: sub_path.to_owned(),
            ..VolumeMount::default()
        }]
    }

    #[test]
    fn an_ordinary_pod_passes() {
        let mut pod = pod();
        pod.spec.containers[0].volume_mounts = mounted("v", "/v", "a/b");
        assert_eq!(check(&pod), Ok(()));
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        type Change = fn(&mut Pod);
        let cases: [(Change, &str); 14] = [
            (|p| p.metadata.name.clear(), "the pod has no metadata.name"),
            (|p| p.metadata.name = "A".into(), "pod name A is not"),
            (|p| p.spec.containers.clear(), "the pod has no containers"),
            (
                |p| p.spec.containers[0].name = "../x".into(),
                "container name ../x is not",
            ),
            (
                |p| p.spec.containers[0].image.clear(),
                "container c has no image",
            ),
            (
                |p| p.spec.host_network = true,
                "hostNetwork cannot be given",
            ),
            (|p| p.spec.host_pid = true, "hostPID cannot be given"),
            (|p| p.spec.host_ipc = true, "hostIPC cannot be given"),
            (
                |p| p.spec.init_containers = p.spec.containers.clone(),
                "two containers are called c",
            ),
            (
                |p| p.spec.volumes[0].nfs = Known(true),
                "volume v is of type nfs",
            ),
            (
                |p| p.spec.volumes[0].empty_dir = None,
                "volume v has no source",
            ),
            (
                |p| p.spec.containers[0].volume_mounts = mounted("w", "/v", ""),
                "container c mounts volume w, which",
            ),
            (
                |p| p.spec.containers[0].volume_mounts = mounted("v", "v", ""),
                "container c mounts volume v at v",
            ),
            (
                |p| p.spec.containers[0].volume_mounts = mounted("v", "/v", "../x"),
                "container c mounts ../x of",
            ),
        ];
        for (change, expected) in cases {
            let mut pod = pod();
            change(&mut pod);
            let error = check(&pod).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
    }

    #[test]
    fn fields_without_effect_are_listed_as_they_are_spelled() {
        let mut pod = pod();
        assert!(without_effect(&pod).is_empty());
        pod.spec.tolerations = Known(true);
        pod.spec.containers[0].liveness_probe = Known(true);
        assert_eq!(
            without_effect(&pod),
            ["spec.tolerations", "spec.containers[0].livenessProbe"]
        );
    }
}
