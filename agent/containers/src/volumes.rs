//! Volumes that the guest makes, known by mount point: the first container that names one
//! makes it, and it lives as long as the pod. A container's end says nothing about it: init
//! containers fill volumes for others, and a restarted container finds what it wrote. The
//! guest ends with its pod, and the keys of the scratch disk with the guest. Volumes of kind
//! `ephemeral` are in memory; those of kind `local` are on the scratch disk, if there is one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{PermissionsExt, fchown},
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use agent_protocol::path::GuestPath;
use agent_requests::{
    Ephemeral, Local, TmpfsOptions,
    paths::{SANDBOX_ROOT, SHARED_ROOT},
};
use agent_scratch_disk::{Place, Scratch, ScratchError, Volume as OnDisk};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use thiserror::Error;

use crate::{
    shared_root::{directory_below, open_below, open_root},
    subpath::open_part,
};

/// The most volumes that are made for a pod.
const VOLUMES_MAX: usize = 256;

/// A volume cannot be had.
#[derive(Debug, Error)]
#[error("cannot make volume {mount_point}")]
pub struct StorageError {
    /// Where it was to appear.
    pub mount_point: GuestPath,
    /// Why it cannot be had.
    #[source]
    pub source: VolumeError,
}

/// Why a volume cannot be had.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The disk that it was to lie on.
    #[error(transparent)]
    Scratch(#[from] Arc<ScratchError>),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] io::Error),
    /// The pod has too many.
    #[error("the pod has {VOLUMES_MAX} volumes already")]
    TooMany,
    /// What is in a volume is the workload's, so nothing is mounted there.
    #[error("it lies in volume {0}, or that one in it")]
    Nested(GuestPath),
}

/// The volumes there are.
#[derive(Debug)]
pub struct Storages {
    /// Each with its root directory, whatever lies at its mount point.
    made: Mutex<BTreeMap<GuestPath, OwnedFd>>,
    scratch: Arc<Scratch>,
}

impl Default for Storages {
    /// All volumes in memory.
    fn default() -> Self {
        Self::new(Arc::new(Scratch::memory()))
    }
}

impl Storages {
    /// No volumes yet; some will be on this disk.
    #[must_use]
    pub fn new(scratch: Arc<Scratch>) -> Self {
        Self {
            made: Mutex::default(),
            scratch,
        }
    }

    /// Mounts a file system in memory, unless it is there already.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn take_ephemeral(&self, storage: Ephemeral) -> Result<GuestPath, StorageError> {
        let Ephemeral {
            mount_point,
            options,
        } = storage;
        self.take(mount_point, |path| {
            mount_tmpfs(&directory_below(path)?, &options)
        })
    }

    /// Makes a directory, unless it is there already; waits for the scratch disk.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn take_local(&self, storage: Local) -> Result<GuestPath, StorageError> {
        let place = match self.scratch.place() {
            Ok(place) => place,
            Err(error) => {
                return Err(StorageError {
                    mount_point: storage.path,
                    source: error.into(),
                });
            }
        };
        let path = storage.path.clone();
        self.take(path, |path| {
            let target = directory_below(path)?;
            match place {
                Place::Disk { .. } => {
                    let volume = OnDisk::make(storage.size)?;
                    own(&File::open(volume.path())?, &storage)?;
                    volume.bind(&target)
                }
                Place::Memory => {
                    let options = TmpfsOptions {
                        size: storage.size,
                        mode: Some(storage.mode),
                        group: storage.group,
                        no_exec: false,
                    };
                    mount_tmpfs(&target, &options)
                }
            }
        })
    }

    fn take(
        &self,
        mount_point: GuestPath,
        make: impl FnOnce(&GuestPath) -> io::Result<OwnedFd>,
    ) -> Result<GuestPath, StorageError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.contains_key(&mount_point) {
            return Ok(mount_point);
        }
        let root = match made.keys().find(|other| are_nested(other, &mount_point)) {
            Some(other) => Err(VolumeError::Nested(other.clone())),
            None if made.len() >= VOLUMES_MAX => Err(VolumeError::TooMany),
            None => make(&mount_point).map_err(VolumeError::Kernel),
        };
        match root {
            Ok(root) => {
                made.insert(mount_point.clone(), root);
                Ok(mount_point)
            }
            Err(source) => Err(StorageError {
                mount_point,
                source,
            }),
        }
    }

    /// Opens what a path names: in the volume that has its mount point there, or else among
    /// what the host and the guest put there. In a volume it comes to exist if it does not, and
    /// links of the workload are followed that stay there; else none is, and no mount crossed.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it lies elsewhere.
    pub(crate) fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let holding = made
            .iter()
            .find_map(|(mount_point, root)| Some((path.strip_prefix(mount_point).ok()?, root)));
        match holding {
            Some((part, root)) if part.as_os_str().is_empty() => root.try_clone(),
            Some((part, root)) => open_part(root, part),
            None => open_outside_volumes(path),
        }
    }
}

fn are_nested(one: &GuestPath, other: &GuestPath) -> bool {
    let (one, other): (&Path, &Path) = (one.as_ref(), other.as_ref());
    one.starts_with(other) || other.starts_with(one)
}

fn open_outside_volumes(path: &Path) -> io::Result<OwnedFd> {
    for root in [SHARED_ROOT, SANDBOX_ROOT] {
        if let Ok(inner) = path.strip_prefix(root) {
            return open_below(&open_root(Path::new(root))?, inner);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Gives a fresh directory its group and its permissions.
fn own(directory: &File, storage: &Local) -> io::Result<()> {
    fchown(directory, None, storage.group)?;
    let set_group = if storage.group.is_some() { 0o2000 } else { 0 };
    directory.set_permissions(fs::Permissions::from_mode(storage.mode | set_group))
}

/// Mounts a fresh file system in memory; answers with its root.
fn mount_tmpfs(target: &OwnedFd, options: &TmpfsOptions) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in tmpfs_settings(options, memory_bytes()?) {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if options.no_exec {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&root, c"", target, c"", whole)?;
    Ok(root)
}

/// The memory of this machine.
fn memory_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kib = kib.ok_or_else(|| io::Error::other("/proc/meminfo names no MemTotal"))?;
    Ok(kib.saturating_mul(1024))
}

/// Settings for the kernel. A size that the machine's memory cannot hold, such as that of the
/// whole node, would let a pod fill it up: the kernel's own limit, half of it, holds then.
fn tmpfs_settings(options: &TmpfsOptions, memory_bytes: u64) -> Vec<(&'static str, String)> {
    let set_group = if options.group.is_some() { 0o2000 } else { 0 };
    let mode = options.mode.unwrap_or(0o1777) | set_group;
    let mut settings = vec![
        ("source", "tmpfs".to_owned()),
        ("mode", format!("{mode:o}")),
    ];
    let size = options.size.filter(|size| *size < memory_bytes);
    settings.extend(size.map(|size| ("size", size.to_string())));
    settings.extend(options.group.map(|group| ("gid", group.to_string())));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> GuestPath {
        GuestPath::parse(&format!("/run/kata-containers/sandbox/{name}")).unwrap()
    }

    fn any_directory() -> io::Result<OwnedFd> {
        Ok(File::open("/")?.into())
    }

    #[test]
    fn a_volume_is_made_once_however_many_containers_come_and_go() {
        let storages = Storages::default();
        let mut made = 0;
        for _ in 0..3 {
            let make = |_: &GuestPath| {
                made += 1;
                any_directory()
            };
            storages.take(path("v"), make).unwrap();
        }
        assert_eq!(made, 1);
    }

    #[test]
    fn a_volume_that_fails_is_not_there() {
        let storages = Storages::default();
        let failed = storages.take(path("v"), |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert!(storages.made.lock().unwrap().is_empty());
    }

    #[test]
    fn no_volume_lies_in_another() {
        let storages = Storages::default();
        storages.take(path("v/w"), |_| any_directory()).unwrap();
        for nested in ["v", "v/w/x"] {
            let error = storages.take(path(nested), |_| any_directory());
            let nested_error = matches!(error.unwrap_err().source, VolumeError::Nested(_));
            assert!(nested_error, "{nested}");
        }
        storages.take(path("v/w2"), |_| any_directory()).unwrap();
    }

    #[test]
    fn options_become_the_kernels_text() {
        let options = TmpfsOptions {
            size: Some(4096),
            mode: Some(0o1777),
            group: Some(7),
            no_exec: true,
        };
        let text = |options, memory_bytes| {
            let settings = tmpfs_settings(options, memory_bytes).into_iter();
            let words: Vec<_> = settings
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            words.join(",")
        };
        let whole = "source=tmpfs,mode=3777,size=4096,gid=7";
        assert_eq!(text(&options, 8192), whole);
        assert_eq!(text(&options, 4096), "source=tmpfs,mode=3777,gid=7");
        let plain = TmpfsOptions::default();
        assert_eq!(text(&plain, 1), "source=tmpfs,mode=1777");
    }

    #[test]
    fn the_memory_of_a_machine_is_known() {
        assert!(memory_bytes().unwrap() > 1 << 20);
    }
}
