//! The volumes that the kubelet keeps for a pod: `pods/UID/volumes/PLUGIN/NAME`, and what it
//! binds of them to `pods/UID/volume-subpaths/NAME/CONTAINER/NUMBER`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Mounts, Place,
    mountinfo::{HostMount, HostMounts, Spot},
};

const PODS: &str = "pods";
const VOLUMES: &str = "volumes";
const SUBPATHS: &str = "volume-subpaths";
/// Begins the name of each folder of volumes that comes with Kubernetes.
const PLUGIN: &str = "kubernetes.io~";
/// Where a volume of a CSI driver is mounted, in its directory.
const MOUNT: &str = "mount";

/// What becomes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The guest makes one.
    EmptyDir,
    /// It is copied for each container, and refreshed.
    Configuration,
    /// It lies somewhere that a guest cannot reach.
    Other,
}

fn kind(plugin: &str) -> Kind {
    match plugin {
        "kubernetes.io~empty-dir" => Kind::EmptyDir,
        "kubernetes.io~configmap"
        | "kubernetes.io~secret"
        | "kubernetes.io~projected"
        | "kubernetes.io~downward-api" => Kind::Configuration,
        _ => Kind::Other,
    }
}

/// A volume of a pod, on the node.
#[derive(Debug)]
pub(crate) struct NodeVolume {
    pub(crate) kind: Kind,
    /// The folder that tells the kind, for messages.
    pub(crate) plugin: String,
    /// Its name in the pod.
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) spot: Spot,
    /// The mount that it lies on.
    pub(crate) mount: HostMount,
}

/// Whether a path is in a pod's directory, but of no volume.
pub(crate) fn is_of_pod(path: &Path) -> bool {
    pod_of(path).is_some_and(|(_, folder)| folder == Folder::Other)
}

/// Whether something lies among volumes of Kubernetes, whosever they are.
pub(crate) fn is_among_volumes(spot: &Spot) -> bool {
    let mut parts = spot.path().iter().filter_map(|part| part.to_str());
    parts.any(|part| part.starts_with(PLUGIN))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folder {
    /// Volumes, or parts of them.
    Volumes,
    Other,
}

/// A pod's directory, and which folder of it the path is in.
fn pod_of(path: &Path) -> Option<(PathBuf, Folder)> {
    let mut before = PathBuf::new();
    let mut parts = path.iter();
    loop {
        let part = parts.next()?;
        before.push(part);
        if part != PODS {
            continue;
        }
        let mut rest = parts.clone();
        let (uid, folder) = (rest.next()?, rest.next()?);
        let folder = match folder.to_str()? {
            VOLUMES | SUBPATHS => Folder::Volumes,
            "containers" | "etc-hosts" => Folder::Other,
            _ => continue,
        };
        return Some((before.join(uid), folder));
    }
}

/// The volume of the same pod that something is, or lies in.
///
/// # Errors
///
/// When the pod's volumes cannot be looked at.
pub(crate) fn volume_of(
    path: &Path,
    spot: &Spot,
    mounts: &HostMounts,
) -> io::Result<Option<NodeVolume>> {
    let Some((pod, _)) = pod_of(path) else {
        return Ok(None);
    };
    let mut found: Option<NodeVolume> = None;
    for plugin in names(&pod.join(VOLUMES))? {
        for name in names(&pod.join(VOLUMES).join(&plugin))? {
            let directory = pod.join(VOLUMES).join(&plugin).join(&name);
            for path in [directory.join(MOUNT), directory] {
                // One that comes or goes meanwhile is not the one looked for.
                let Ok(place) = Place::open(&path, Mounts::Included) else {
                    continue;
                };
                let Ok((root, mount)) = mounts.find(&place) else {
                    continue;
                };
                let deeper = |other: &NodeVolume| root.below(&other.spot).is_some();
                if spot.below(&root).is_some() && found.as_ref().is_none_or(deeper) {
                    found = Some(NodeVolume {
                        kind: kind(&plugin),
                        plugin: plugin.clone(),
                        name: name.clone(),
                        place,
                        spot: root,
                        mount: mount.clone(),
                    });
                }
            }
        }
    }
    Ok(found)
}

/// Names in a directory that is there or not.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_a_pod_are_told_apart() {
        let path = |rest: &str| PathBuf::from(format!("/var/lib/kubelet/pods/uid/{rest}"));
        for rest in [
            "volumes/kubernetes.io~empty-dir/disk",
            "volumes/kubernetes.io~csi/claim/mount",
            "volume-subpaths/disk/main/1",
        ] {
            assert!(pod_of(&path(rest)).is_some(), "{rest}");
            assert!(!is_of_pod(&path(rest)), "{rest}");
        }
        for rest in ["etc-hosts", "containers/main/0f0a3767"] {
            assert!(is_of_pod(&path(rest)), "{rest}");
        }
        for other in ["/tmp/pods", "/pods/x", "/pods/x/y", "/etc/hosts", "/"] {
            let other = Path::new(other);
            assert!(pod_of(other).is_none(), "{other:?}");
        }
        let nested = Path::new("/pods/pods/uid/volumes/kubernetes.io~secret/s");
        assert_eq!(pod_of(nested).unwrap().0, Path::new("/pods/pods/uid"));
    }

    #[test]
    fn kinds_that_nobody_knows_are_not_taken_for_others() {
        assert_eq!(kind("kubernetes.io~empty-dir"), Kind::EmptyDir);
        assert_eq!(kind("kubernetes.io~secret"), Kind::Configuration);
        for other in ["kubernetes.io~csi", "kubernetes.io~nfs", "vendor~flex", ""] {
            assert_eq!(kind(other), Kind::Other, "{other}");
        }
    }
}
