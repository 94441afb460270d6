//! What a container's mounts become in the guest.
//!
//! Nothing of the host is shared with the guest, so each bind mount of the spec is
//! replaced: files, ConfigMaps and Secrets are copied in ([`copy`](mod@crate::copy)), `/dev/shm`
//! becomes the pod's, an `emptyDir` becomes a directory or tmpfs of the guest. The
//! `sizeLimit` of an `emptyDir` does not reach a runtime through CRI, so a pod that wants
//! it kept says it again in an annotation, where its policy can see it too. What
//! cannot be had without sharing (sockets, devices) is refused by name. Root file
//! systems are pulled in the guest ([`guest_pull`](crate::guest_pull)).

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use agent_protocol::{
    id::{ContainerId, SandboxId},
    rpc::agent::Storage,
};
use shim_oci::{Mount, Spec};
use thiserror::Error;

use crate::{CopyError, CopyPlan, Mounts, Place};

/// Where copied files go.
const SHARE: &str = "/run/kata-containers/shared/containers";
/// The pod's shared memory in the guest.
const GUEST_SHM: &str = "/run/kata-containers/sandbox/shm";
const GUEST_EPHEMERAL: &str = "/run/kata-containers/sandbox/ephemeral";
/// Size of the pod's shared memory, in bytes; what containerd gives without a VM.
const SHM_BYTES: u64 = 64 << 20;
const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";

/// Why a mount cannot be had.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The source cannot be looked at.
    #[error("cannot read {mount_source}, mounted at {destination}")]
    Source {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The source is something that only the host can serve.
    #[error(
        "{mount_source}, mounted at {destination}, is a {kind} of the host: a confidential pod cannot use it, so remove the volume"
    )]
    HostOnly {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
        /// What it is.
        kind: &'static str,
    },
    /// Copying failed.
    #[error("cannot copy {mount_source}, mounted at {destination}, into the guest")]
    Copy {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
        /// The cause.
        #[source]
        source: Box<CopyError>,
    },
}

/// What to do before `CreateContainer`, and what to say in it.
#[derive(Debug, Default)]
pub struct VolumePlan {
    /// The mounts of the guest's spec.
    pub mounts: Vec<Mount>,
    /// Volumes that the guest makes itself.
    pub storages: Vec<Storage>,
    /// Files to copy first.
    pub copies: Vec<CopyPlan>,
    /// Where the container's termination message goes on the host.
    pub termination_log: Option<Place>,
}

/// The pod's `/dev/shm`, as policies expect it in `CreateSandbox`.
pub fn shm_storage() -> Storage {
    let options = ["noexec", "nosuid", "nodev", "mode=1777"];
    Storage {
        driver: "ephemeral".to_owned(),
        source: "shm".to_owned(),
        fstype: "tmpfs".to_owned(),
        options: options
            .iter()
            .map(|option| (*option).to_owned())
            .chain([format!("size={SHM_BYTES}")])
            .collect(),
        mount_point: GUEST_SHM.to_owned(),
        ..Storage::default()
    }
}

/// The container that volumes are planned for, and its pod.
#[derive(Debug, Clone, Copy)]
pub struct VolumeOwner<'a> {
    /// The container.
    pub container: &'a ContainerId,
    /// Its pod.
    pub sandbox: &'a SandboxId,
    /// The most bytes of the pod's `emptyDir` volumes, by name.
    pub limits: &'a BTreeMap<String, u64>,
}

/// Decides every mount of a container. Opens the host's files, changes nothing.
///
/// # Errors
///
/// [`VolumeError`] names the mount that cannot be had.
pub fn plan(owner: VolumeOwner<'_>, spec: &Spec) -> Result<VolumePlan, VolumeError> {
    let mut plan = VolumePlan::default();
    let termination = spec.annotation(TERMINATION_PATH);
    for mount in &spec.mounts {
        let mut replaced = mount.clone();
        // The guest takes paths in their plainest spelling only.
        let plain: PathBuf = Path::new(&mount.destination).components().collect();
        replaced.destination = plain.display().to_string();
        if !is_bind(mount) {
            plan.mounts.push(replaced);
            continue;
        }
        if replaced.destination == "/dev/shm" {
            replaced.source = GUEST_SHM.to_owned();
            replaced.options = vec!["rbind".to_owned()];
        } else {
            let is_termination_log = termination == Some(mount.destination.as_str());
            replaced.source = bind(owner, mount, is_termination_log, &mut plan)?;
        }
        plan.mounts.push(replaced);
    }
    Ok(plan)
}

fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind")
}

/// Mounts below the source belong to a recursive bind only.
fn mounts_of(mount: &Mount) -> Mounts {
    if mount.options.iter().any(|option| option == "rbind") {
        Mounts::Included
    } else {
        Mounts::Refused
    }
}

/// Plans one bind mount; answers with its source in the guest.
fn bind(
    owner: VolumeOwner<'_>,
    mount: &Mount,
    is_termination_log: bool,
    plan: &mut VolumePlan,
) -> Result<String, VolumeError> {
    let failed = |source| VolumeError::Source {
        mount_source: mount.source.clone(),
        destination: mount.destination.clone(),
        source,
    };
    let host = Path::new(&mount.source);
    let place = if owner.container.as_str() == owner.sandbox.as_str() {
        // containerd wrote this mount itself, maybe by a link to where its files are.
        let resolved = host.canonicalize().map_err(failed)?;
        Place::open(&resolved, mounts_of(mount))
    } else {
        Place::open(host, mounts_of(mount))
    };
    let place = place.map_err(failed)?;
    let metadata = place.metadata().map_err(failed)?;
    let kind = metadata.file_type();
    if let Some(name) = empty_dir(host).filter(|_| kind.is_dir()) {
        let storage = empty_dir_storage(owner, &name, place.is_in_memory(), metadata.gid());
        let guest = storage.mount_point.clone();
        plan.storages.push(storage);
        return Ok(guest);
    }
    let only = |kind| {
        Err(VolumeError::HostOnly {
            mount_source: mount.source.clone(),
            destination: mount.destination.clone(),
            kind,
        })
    };
    if kind.is_socket() {
        return only("socket");
    }
    if kind.is_fifo() {
        return only("fifo");
    }
    if kind.is_block_device() || kind.is_char_device() {
        return only("device");
    }
    let name = guest_name(owner.container, &mount.destination).map_err(failed)?;
    let guest = format!("{SHARE}/{name}");
    if is_termination_log {
        plan.termination_log = Some(place.clone());
    }
    plan.copies.push(CopyPlan {
        place,
        guest: guest.clone(),
        destination: mount.destination.clone(),
    });
    Ok(guest)
}

/// The volume's name if the path is (in) an `emptyDir` of kubelet's.
fn empty_dir(host: &Path) -> Option<String> {
    let mut parts = host.iter();
    parts.find(|part| *part == EMPTY_DIR)?;
    let name = parts.next()?.to_str()?;
    // A subPath below it is not the volume itself.
    parts.next().is_none().then(|| name.to_owned())
}

fn empty_dir_storage(owner: VolumeOwner<'_>, name: &str, in_memory: bool, gid: u32) -> Storage {
    let sandbox = owner.sandbox;
    let group = (gid != 0).then(|| format!("fsgid={gid}"));
    let limit = owner.limits.get(name);
    let further = group
        .into_iter()
        .chain(limit.map(|bytes| format!("size={bytes}")));
    if in_memory {
        return Storage {
            driver: "ephemeral".to_owned(),
            source: "tmpfs".to_owned(),
            fstype: "tmpfs".to_owned(),
            options: further.collect(),
            mount_point: format!("{GUEST_EPHEMERAL}/{name}"),
            ..Storage::default()
        };
    }
    Storage {
        driver: "local".to_owned(),
        source: "local".to_owned(),
        fstype: "local".to_owned(),
        options: std::iter::once("mode=0777".to_owned())
            .chain(further)
            .collect(),
        mount_point: format!("{SHARE}/{sandbox}/rootfs/local/{name}"),
        ..Storage::default()
    }
}

/// `<container>-<16 hex digits>-<last part of the destination>`.
fn guest_name(id: &ContainerId, destination: &str) -> io::Result<String> {
    let mut random = [0; 8];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let last = Path::new(destination).file_name();
    let last = last.and_then(|name| name.to_str()).unwrap_or("volume");
    Ok(format!("{id}-{digits}-{last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (ContainerId, SandboxId) {
        (
            ContainerId::parse("c1").unwrap(),
            SandboxId::parse("s1").unwrap(),
        )
    }

    fn spec(mounts: &[(&str, &Path)]) -> Spec {
        let mounts = mounts.iter().map(|(destination, source)| Mount {
            destination: (*destination).to_owned(),
            source: source.display().to_string(),
            kind: "bind".to_owned(),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
        });
        Spec {
            mounts: mounts.collect(),
            ..Spec::default()
        }
    }

    fn planned(spec: &Spec) -> Result<VolumePlan, VolumeError> {
        planned_for(&ids().0, spec)
    }

    fn planned_for(container: &ContainerId, spec: &Spec) -> Result<VolumePlan, VolumeError> {
        let owner = VolumeOwner {
            container,
            sandbox: &ids().1,
            limits: &BTreeMap::from([("small".to_owned(), 4096)]),
        };
        plan(owner, spec)
    }

    #[test]
    fn shared_memory_is_the_pods_and_system_mounts_stay() {
        let mut spec = spec(&[("/dev/shm", Path::new("/host/shm"))]);
        spec.mounts.push(Mount {
            destination: "/proc".into(),
            source: "proc".into(),
            kind: "proc".into(),
            options: vec![],
        });
        let plan = planned(&spec).unwrap();
        assert_eq!(plan.mounts[0].source, GUEST_SHM);
        assert_eq!(plan.mounts[0].options, ["rbind"]);
        assert_eq!(plan.mounts[1].source, "proc");
        assert!(plan.copies.is_empty() && plan.storages.is_empty());
    }

    #[test]
    fn files_and_directories_are_copied_under_a_name_that_policies_know() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("etc-hosts");
        fs::write(&hosts, "x").unwrap();
        let mut spec = spec(&[("/etc/hosts", &hosts), ("/config", folder.path())]);
        spec.annotations
            .insert(TERMINATION_PATH.into(), "/etc/hosts".into());
        let plan = planned(&spec).unwrap();
        assert_eq!(plan.copies.len(), 2);
        let guest = &plan.copies[0].guest;
        assert_eq!(guest, &plan.mounts[0].source);
        let name = guest.strip_prefix(&format!("{SHARE}/c1-")).unwrap();
        let (digits, last) = name.split_once('-').unwrap();
        assert_eq!((digits.len(), last), (16, "hosts"));
        assert_eq!(plan.mounts[0].options, ["rbind", "ro"]);
        let log = plan.termination_log.unwrap();
        assert_eq!(log.path(), hosts);
    }

    #[test]
    fn an_empty_dir_becomes_a_directory_of_the_guest() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join(EMPTY_DIR).join("cache");
        fs::create_dir_all(&volume).unwrap();
        let plan = planned(&spec(&[("/cache", &volume)])).unwrap();
        assert!(plan.copies.is_empty());
        let storage = &plan.storages[0];
        assert!(["local", "ephemeral"].contains(&storage.driver.as_str()));
        assert_eq!(plan.mounts[0].source, storage.mount_point);
        assert!(storage.mount_point.ends_with("/cache"));

        let below = volume.join("sub");
        fs::create_dir(&below).unwrap();
        let plan = planned(&spec(&[("/cache", &below)])).unwrap();
        assert_eq!(plan.copies.len(), 1);
    }

    #[test]
    fn an_empty_dir_has_the_limit_that_its_pod_gave_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, limited) in [("small", true), ("other", false)] {
            let volume = folder.path().join(EMPTY_DIR).join(name);
            fs::create_dir_all(&volume).unwrap();
            let plan = planned(&spec(&[("/v", &volume)])).unwrap();
            let options = &plan.storages[0].options;
            assert_eq!(
                options.contains(&"size=4096".to_owned()),
                limited,
                "{options:?}"
            );
        }
    }

    #[test]
    fn what_only_the_host_can_serve_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = planned(&spec(&[("/s", &socket)])).unwrap_err().to_string();
        assert!(text.contains("s.sock") && text.contains("socket"), "{text}");
        let text = planned(&spec(&[("/n", Path::new("/dev/null"))]))
            .unwrap_err()
            .to_string();
        assert!(text.contains("device"), "{text}");
        assert!(planned(&spec(&[("/x", Path::new("/nonexistent"))])).is_err());
    }

    #[test]
    fn a_source_behind_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        fs::create_dir(&volume).unwrap();
        assert!(planned(&spec(&[("/v", &volume)])).is_ok());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&volume, &link).unwrap();
        let error = planned(&spec(&[("/v", &link)])).unwrap_err();
        let VolumeError::Source { source, .. } = error else {
            panic!("{error}");
        };
        assert!(source.to_string().contains("symbolic link"), "{source}");
        // Not so for the pod's first container, whose mounts containerd makes up itself.
        let first = ContainerId::parse("s1").unwrap();
        assert!(planned_for(&first, &spec(&[("/v", &link)])).is_ok());
    }

    #[test]
    fn the_pods_shared_memory_is_what_policies_demand() {
        let storage = shm_storage();
        assert_eq!(
            storage.options,
            ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]
        );
        assert!(storage.fs_group.is_none() && !storage.shared);
    }
}
