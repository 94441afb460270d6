//! Volumes that the guest makes, shared by mount point: the first container that names
//! one makes it, the last one that goes removes it. Those of kind `ephemeral` are in
//! memory; those of kind `local` are on the scratch disk, if there is one.

use std::{
    collections::HashMap,
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
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use thiserror::Error;

use crate::shared_root::{directory_below, open_below, open_root};

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
}

#[derive(Debug)]
enum Kind {
    Mount,
    OnDisk(OnDisk),
}

#[derive(Debug)]
struct Volume {
    kind: Kind,
    /// Its root directory, whatever lies at its mount point.
    root: OwnedFd,
    users: usize,
    /// Kept when nobody uses it.
    shared: bool,
}

/// The volumes there are.
#[derive(Debug)]
pub struct Storages {
    volumes: Mutex<HashMap<GuestPath, Volume>>,
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
            volumes: Mutex::default(),
            scratch,
        }
    }

    /// Takes a share in a file system in memory, mounting it if nobody has it.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn take_ephemeral(&self, storage: Ephemeral) -> Result<GuestPath, StorageError> {
        let Ephemeral {
            mount_point,
            options,
            shared,
        } = storage;
        self.take(mount_point, shared, |path| {
            let root = mount_tmpfs(&directory_below(path)?, &options)?;
            Ok((Kind::Mount, root))
        })
    }

    /// Takes a share in a directory, making it if nobody has it; waits for the scratch
    /// disk.
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
        self.take(path, storage.shared, |path| {
            let target = directory_below(path)?;
            match (place, storage.size) {
                (Place::Disk { .. }, size) => {
                    let volume = OnDisk::make(size)?;
                    own(&File::open(volume.path())?, &storage)?;
                    let root = volume.bind(&target)?;
                    Ok((Kind::OnDisk(volume), root))
                }
                (Place::Memory, size) => {
                    let options = TmpfsOptions {
                        size,
                        mode: Some(storage.mode),
                        group: storage.group,
                        no_exec: false,
                    };
                    Ok((Kind::Mount, mount_tmpfs(&target, &options)?))
                }
            }
        })
    }

    fn take(
        &self,
        mount_point: GuestPath,
        shared: bool,
        make: impl FnOnce(&GuestPath) -> io::Result<(Kind, OwnedFd)>,
    ) -> Result<GuestPath, StorageError> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = volumes.get_mut(&mount_point) {
            volume.users += 1;
            return Ok(mount_point);
        }
        match make(&mount_point) {
            Ok((kind, root)) => {
                volumes.insert(
                    mount_point.clone(),
                    Volume {
                        kind,
                        root,
                        users: 1,
                        shared,
                    },
                );
                Ok(mount_point)
            }
            Err(source) => Err(StorageError {
                mount_point,
                source: source.into(),
            }),
        }
    }

    /// Opens what a path names: in the volume that has its mount point there, or else among
    /// what the host and the guest put there. No link is followed on the way, and no mount
    /// crossed.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub(crate) fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let holding = volumes.iter().filter_map(|(mount_point, volume)| {
            let inner = path.strip_prefix(mount_point).ok()?;
            Some((inner, &volume.root))
        });
        match holding.min_by_key(|(inner, _)| inner.components().count()) {
            Some((inner, root)) if inner.as_os_str().is_empty() => root.try_clone(),
            Some((inner, root)) => open_below(root, inner),
            None => open_outside_volumes(path),
        }
    }

    /// Gives a share back; the last one removes the volume unless it is shared.
    ///
    /// # Errors
    ///
    /// When the volume cannot be removed.
    pub fn give_back(&self, mount_point: &GuestPath) -> io::Result<()> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(volume) = volumes.get_mut(mount_point) else {
            return Ok(());
        };
        volume.users = volume.users.saturating_sub(1);
        if volume.users > 0 || volume.shared {
            return Ok(());
        }
        let Some(volume) = volumes.remove(mount_point) else {
            return Ok(());
        };
        let unmount = || {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            rustix::mount::unmount(mount_point.as_str(), flags)?;
            fs::remove_dir(mount_point)
        };
        match volume.kind {
            Kind::Mount => unmount(),
            Kind::OnDisk(directory) => {
                let unmounted = unmount();
                directory.remove().and(unmounted)
            }
        }
    }
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
    for (key, value) in tmpfs_settings(options) {
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

fn tmpfs_settings(options: &TmpfsOptions) -> Vec<(&'static str, String)> {
    let set_group = if options.group.is_some() { 0o2000 } else { 0 };
    let mode = options.mode.unwrap_or(0o777) | set_group;
    let mut settings = vec![
        ("source", "tmpfs".to_owned()),
        ("mode", format!("{mode:o}")),
    ];
    settings.extend(options.size.map(|size| ("size", size.to_string())));
    settings.extend(options.group.map(|group| ("gid", group.to_string())));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> GuestPath {
        GuestPath::parse("/run/kata-containers/sandbox/v").unwrap()
    }

    #[test]
    fn a_volume_is_made_once_and_counted() {
        let storages = Storages::default();
        let mut made = 0;
        for _ in 0..3 {
            storages
                .take(path(), true, |_| {
                    made += 1;
                    Ok((Kind::Mount, File::open("/")?.into()))
                })
                .unwrap();
        }
        assert_eq!(made, 1);
        storages.give_back(&path()).unwrap();
        let volumes = storages.volumes.lock().unwrap();
        assert_eq!(volumes.get(&path()).unwrap().users, 2);
    }

    #[test]
    fn a_volume_that_fails_is_not_counted() {
        let storages = Storages::default();
        let failed = storages.take(path(), false, |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert!(storages.volumes.lock().unwrap().is_empty());
    }

    #[test]
    fn options_become_the_kernels_text() {
        let options = TmpfsOptions {
            size: Some(4096),
            mode: Some(0o1777),
            group: Some(7),
            no_exec: true,
        };
        let text = |options| {
            let settings = tmpfs_settings(options).into_iter();
            let words: Vec<_> = settings
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            words.join(",")
        };
        assert_eq!(text(&options), "source=tmpfs,mode=3777,size=4096,gid=7");
        assert_eq!(text(&TmpfsOptions::default()), "source=tmpfs,mode=777");
    }
}
