//! Which of a container's mounts put content of the host over what its image has.
//!
//! Kubernetes does that where a pod says so (a ConfigMap at `/etc/nginx`), and a host could
//! do it to any program. It needs a grant, and is marked in the log.

use std::path::{Path, PathBuf};

use agent_protocol::path::GuestPath;
use agent_workload::{Source, source};
use oci_spec::runtime::{Mount, Spec};

use crate::inside::Inside;

/// What Kubernetes itself puts into every container.
const OF_KUBERNETES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// The destinations of such mounts of a container that has these volumes.
pub(crate) fn covered(inside: &Inside, spec: &Spec, volumes: &[GuestPath]) -> Vec<PathBuf> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let covering = mounts
        .iter()
        .filter(|mount| is_filled_by_host(mount, volumes));
    covering
        .map(|mount| mount.destination())
        .filter(|path| !OF_KUBERNETES.iter().any(|own| path == &Path::new(own)))
        .filter(|path| inside.has_content(path))
        .cloned()
        .collect()
}

/// Whether what is mounted is the host's: files that it copied, or a file system in memory
/// that came with its request.
fn is_filled_by_host(mount: &Mount, volumes: &[GuestPath]) -> bool {
    let path = mount.source().as_ref().and_then(|path| path.to_str());
    let of_host = |path| matches!(source(path, volumes), Source::OfHost | Source::OfPod(_));
    path.is_some_and(of_host)
}

/// Whether what is mounted are files that the host copied: what is in a volume the pod wrote.
pub(crate) fn is_copied(mount: &Mount, volumes: &[GuestPath]) -> bool {
    let path = mount.source().as_ref().and_then(|path| path.to_str());
    path.is_some_and(|path| source(path, volumes) == Source::OfHost)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use agent_requests::paths::{SANDBOX_ROOT, SHARED_ROOT};
    use oci_spec::runtime::MountBuilder;

    use super::*;

    fn marked(root: &Path, mounts: &[(&str, &str)]) -> Vec<PathBuf> {
        let mounts = mounts.iter().map(|(destination, source)| {
            let mount = MountBuilder::default().destination(*destination);
            mount.source(*source).typ("bind").build().unwrap()
        });
        let mut spec = Spec::default();
        spec.set_mounts(Some(mounts.collect()));
        let volume = format!("{SHARED_ROOT}/s1/rootfs/local/v");
        let volumes = [GuestPath::parse(&volume).unwrap()];
        covered(&Inside::open(root).unwrap(), &spec, &volumes)
    }

    #[test]
    fn content_of_the_host_over_what_the_image_has_is_marked() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/nginx")).unwrap();
        fs::create_dir_all(root.path().join("empty")).unwrap();
        fs::write(root.path().join("etc/nginx/nginx.conf"), "x").unwrap();
        fs::write(root.path().join("etc/hosts"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/nginx", root.path().join("link")).unwrap();
        let copied = format!("{SHARED_ROOT}/c1-0123-file");
        let ephemeral = format!("{SANDBOX_ROOT}/ephemeral/v");
        let disguised = format!("{SHARED_ROOT}/s1/rootfs/local/no-volume");
        for (destination, source) in [
            ("/etc/nginx/nginx.conf", &copied),
            ("/etc/nginx", &copied),
            ("/link/nginx.conf", &copied),
            ("/etc", &ephemeral),
            ("/etc/nginx", &disguised),
        ] {
            let expected = [PathBuf::from(destination)];
            assert_eq!(marked(root.path(), &[(destination, source)]), expected);
        }
        let volume = format!("{SHARED_ROOT}/s1/rootfs/local/v");
        let shm = format!("{SANDBOX_ROOT}/shm");
        let harmless = [
            ("/etc/hosts", copied.as_str()),
            ("/etc/nginx/new.conf", &copied),
            ("/empty", &copied),
            ("/nowhere/at/all", &copied),
            ("/etc/nginx", &volume),
            ("/dev/shm", &shm),
        ];
        assert!(marked(root.path(), &harmless).is_empty());
    }
}
