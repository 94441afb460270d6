//! What a container's mounts become in the guest.
//!
//! Nothing of the host is shared with the guest, so each bind mount of the spec is replaced.
//! What it becomes is decided by what its source is on the node, whatever the path of the source
//! or of the target: an `emptyDir`, or a part of one, is the one that the guest makes for the
//! pod; ConfigMaps, Secrets and the files that containerd and kubelet make for a container are
//! copied for it ([`copy_all`](crate::copy_all)); any other path of the node is copied once for
//! the pod. What cannot be had without sharing (sockets, devices, volumes of other kinds) is
//! refused by name. Root file systems are pulled in the guest
//! ([`guest_pull`](crate::guest_pull)).

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use agent_protocol::{
    id::{ContainerId, SandboxId},
    rpc::agent::Storage,
};
use shim_oci::{Mount, Spec};

use crate::{
    Copied, CopyPlan, Mounts, Place, PodVolumes, VolumeError, empty_dir,
    kubelet::{self, Kind, NodeVolume},
    mountinfo::{HostMounts, Spot},
    pod::{Conflict, Found, What},
};

/// Where copied files go.
pub(crate) const SHARE: &str = "/run/kata-containers/shared/containers";
/// The pod's shared memory in the guest.
pub(crate) const GUEST_SHM: &str = "/run/kata-containers/sandbox/shm";
/// Size of the pod's shared memory, in bytes; what containerd gives without a VM.
const SHM_BYTES: u64 = 64 << 20;
const SHM: &str = "/dev/shm";
/// Begins the name of what is copied for the pod.
const OF_POD: &str = "sandbox";
pub(crate) const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";

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
    /// What the pod's containers have had so far.
    pub pod: &'a PodVolumes,
    /// The most bytes of the pod's `emptyDir` volumes, by name.
    pub limits: &'a BTreeMap<String, u64>,
}

/// Decides every mount of a container. Opens the host's files, changes nothing.
///
/// # Errors
///
/// [`VolumeError`] names the mount that cannot be had.
pub fn plan(owner: VolumeOwner<'_>, spec: &Spec) -> Result<VolumePlan, VolumeError> {
    let mut planning = Planning {
        owner,
        termination: spec.annotation(TERMINATION_PATH),
        plan: VolumePlan::default(),
    };
    let mut sources = Vec::new();
    for (number, mount) in spec.mounts.iter().enumerate() {
        let mut replaced = mount.clone();
        // The guest takes paths in their plainest spelling only.
        let plain: PathBuf = Path::new(&mount.destination).components().collect();
        replaced.destination = plain.display().to_string();
        if is_bind(mount) {
            if is_shared_memory(owner.sandbox, &replaced) {
                replaced.source = GUEST_SHM.to_owned();
                replaced.options = vec!["rbind".to_owned()];
            } else {
                let source = planning.look(mount)?;
                if source.mounts_read_only {
                    make_read_only(&mut replaced.options);
                }
                sources.push((number, source));
            }
        }
        planning.plan.mounts.push(replaced);
    }
    // The whole before its parts, so that they become parts of it.
    sources.sort_by_key(|(_, source)| source.spot.path().iter().count());
    for (number, source) in sources {
        let guest = planning.place(source)?;
        if let Some(mount) = planning.plan.mounts.get_mut(number) {
            mount.source = guest;
        }
    }
    Ok(planning.plan)
}

fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind")
}

/// Whether this is what containerd mounts where a pod says nothing: a directory that it made
/// for the sandbox.
fn is_shared_memory(sandbox: &SandboxId, mount: &Mount) -> bool {
    let of_sandbox = Path::new(sandbox.as_str()).join("shm");
    mount.destination == SHM && Path::new(&mount.source).ends_with(of_sandbox)
}

/// Mounts below the source belong to a recursive bind only.
fn mounts_of(mount: &Mount) -> Mounts {
    if mount.options.iter().any(|option| option == "rbind") {
        Mounts::Included
    } else {
        Mounts::Refused
    }
}

fn is_read_only(options: &[String]) -> bool {
    options
        .iter()
        .any(|option| option == "ro" || option == "rro")
}

fn make_read_only(options: &mut Vec<String>) {
    options.retain(|option| option != "rw");
    if !is_read_only(options) {
        options.push("ro".to_owned());
    }
}

/// A bind mount whose source was opened.
struct Source<'a> {
    mount: &'a Mount,
    place: Place,
    spot: Spot,
    all: HostMounts,
    /// Whether it is so on the node, whatever the container asks for.
    mounts_read_only: bool,
    writable: bool,
}

impl Source<'_> {
    fn failed(&self, source: io::Error) -> VolumeError {
        unreadable(self.mount)(source)
    }

    fn names(&self) -> (String, String) {
        (self.mount.source.clone(), self.mount.destination.clone())
    }
}

fn unreadable(mount: &Mount) -> impl Fn(io::Error) -> VolumeError {
    move |source| VolumeError::Source {
        mount_source: mount.source.clone(),
        destination: mount.destination.clone(),
        source,
    }
}

struct Planning<'a> {
    owner: VolumeOwner<'a>,
    termination: Option<&'a str>,
    plan: VolumePlan,
}

impl Planning<'_> {
    /// Opens a source, unless only the host could serve it.
    fn look<'m>(&self, mount: &'m Mount) -> Result<Source<'m>, VolumeError> {
        let failed = unreadable(mount);
        let host = Path::new(&mount.source);
        let place = if self.owner.container.as_str() == self.owner.sandbox.as_str() {
            // containerd wrote this mount itself, maybe by a link to where its files are.
            let resolved = host.canonicalize().map_err(&failed)?;
            Place::open(&resolved, mounts_of(mount))
        } else {
            Place::open(host, mounts_of(mount))
        };
        let place = place.map_err(&failed)?;
        let kind = place.metadata().map_err(&failed)?.file_type();
        let only_on_host = [
            (kind.is_socket(), "socket"),
            (kind.is_fifo(), "fifo"),
            (kind.is_block_device() || kind.is_char_device(), "device"),
            (host == Path::new(SHM), "shared memory"),
        ];
        if let Some((_, kind)) = only_on_host.into_iter().find(|(is, _)| *is) {
            return Err(VolumeError::HostOnly {
                mount_source: mount.source.clone(),
                destination: mount.destination.clone(),
                kind,
            });
        }
        let all = HostMounts::read().map_err(&failed)?;
        let (spot, on) = all.find(&place).map_err(&failed)?;
        let mounts_read_only = on.is_read_only();
        Ok(Source {
            mounts_read_only,
            writable: !mounts_read_only && !is_read_only(&mount.options),
            mount,
            place,
            spot,
            all,
        })
    }

    /// Decides what a source becomes; answers with its place in the guest.
    fn place(&mut self, source: Source<'_>) -> Result<String, VolumeError> {
        let is_termination_log = self.termination == Some(source.mount.destination.as_str());
        if is_termination_log {
            self.plan.termination_log = Some(source.place.clone());
        }
        let path = source.place.path();
        if is_termination_log || kubelet::is_of_pod(path) || self.is_of_containerd(path) {
            return self.copy_for_container(source);
        }
        let volume = kubelet::volume_of(path, &source.spot, &source.all);
        if let Some(volume) = volume.map_err(|error| source.failed(error))? {
            return self.place_volume(source, volume);
        }
        let found = self.owner.pod.find(&source.spot, source.writable);
        match found {
            Some(found) if found.is_made() => self.take(source, found),
            _ if kubelet::is_among_volumes(&source.spot) => {
                let (mount_source, destination) = source.names();
                Err(VolumeError::Unknown {
                    mount_source,
                    destination,
                })
            }
            Some(found) => self.take(source, found),
            None => {
                // As every copy: a policy knows where the container has it, not where the node has.
                let last = Path::new(&source.mount.destination);
                let name = copy_name(OF_POD, last).map_err(|error| source.failed(error))?;
                let spot = source.spot.clone();
                self.add(source, spot, name, What::Copied(Copied::default()))
            }
        }
    }

    /// Whether containerd made it, in a directory of the sandbox (`resolv.conf`) or of the
    /// container (a `VOLUME` of its image).
    fn is_of_containerd(&self, path: &Path) -> bool {
        let of = [
            ("sandboxes", self.owner.sandbox.as_str()),
            ("containers", self.owner.container.as_str()),
        ];
        let pairs = path.iter().zip(path.iter().skip(1));
        let mut pairs = pairs.filter_map(|(folder, id)| Some((folder.to_str()?, id.to_str()?)));
        pairs.any(|pair| of.contains(&pair))
    }

    fn place_volume(
        &mut self,
        source: Source<'_>,
        volume: NodeVolume,
    ) -> Result<String, VolumeError> {
        let storage = match volume.kind {
            Kind::Configuration => return self.copy_for_container(source),
            Kind::EmptyDir => empty_dir::storage(self.owner, &volume),
            Kind::Other => Ok(None),
        };
        match storage.map_err(|error| source.failed(error))? {
            Some(storage) => {
                let guest = storage.mount_point.clone();
                self.add(source, volume.spot, guest, What::Made(storage))
            }
            None => {
                let (mount_source, destination) = source.names();
                Err(VolumeError::Kind {
                    mount_source,
                    destination,
                    kind: format!("{} ({})", volume.plugin, volume.mount.kind),
                })
            }
        }
    }

    /// Gives a volume its place in the guest, and takes it there.
    fn add(
        &mut self,
        source: Source<'_>,
        spot: Spot,
        guest: String,
        what: What,
    ) -> Result<String, VolumeError> {
        let (mount_source, destination) = source.names();
        match self.owner.pod.add(spot, guest, what, source.writable) {
            Ok(()) => {}
            Err(Conflict::PartWasCopied) => {
                return Err(VolumeError::Overlap {
                    mount_source,
                    destination,
                });
            }
            Err(Conflict::Taken) => {
                return Err(VolumeError::SameName {
                    mount_source,
                    destination,
                });
            }
        }
        match self.owner.pod.find(&source.spot, source.writable) {
            Some(found) => self.take(source, found),
            None => Err(source.failed(io::Error::other("its name is not UTF-8"))),
        }
    }

    fn take(&mut self, source: Source<'_>, found: Found) -> Result<String, VolumeError> {
        match found.what {
            What::Made(storage) => {
                let is_same = |other: &Storage| other.mount_point == storage.mount_point;
                if !self.plan.storages.iter().any(is_same) {
                    self.plan.storages.push(storage);
                }
            }
            // A directory that the kubelet made after the whole was copied.
            What::Copied(_) if found.is_part => {
                let metadata = source.place.metadata();
                if metadata.map_err(|error| source.failed(error))?.is_dir() {
                    self.copy(source, found.guest.clone(), None, true);
                }
            }
            What::Copied(copied) => self.copy(source, found.guest.clone(), Some(copied), false),
        }
        Ok(found.guest)
    }

    fn copy_for_container(&mut self, source: Source<'_>) -> Result<String, VolumeError> {
        let last = Path::new(&source.mount.destination);
        let guest = copy_name(self.owner.container.as_str(), last);
        let guest = guest.map_err(|error| source.failed(error))?;
        self.copy(source, guest.clone(), None, false);
        Ok(guest)
    }

    fn copy(
        &mut self,
        source: Source<'_>,
        guest: String,
        copied: Option<Copied>,
        only_directory: bool,
    ) {
        self.plan.copies.push(CopyPlan {
            place: source.place,
            guest,
            destination: source.mount.destination.clone(),
            copied,
            only_directory,
        });
    }
}

/// `<owner>-<16 hex digits>-<last part of the path>`, below the root of copies.
fn copy_name(owner: &str, path: &Path) -> io::Result<String> {
    let mut random = [0; 8];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let last = path.file_name().and_then(|name| name.to_str());
    Ok(format!(
        "{SHARE}/{owner}-{digits}-{}",
        last.unwrap_or("volume")
    ))
}
