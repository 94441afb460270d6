//! Volumes that the guest makes, shared by mount point: the first container that names
//! one makes it, the last one that goes removes it. Those of kind `ephemeral` are in
//! memory; those of kind `local` are on the scratch disk, if there is one.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, fchown},
    },
    sync::{Arc, Mutex, PoisonError},
};

use agent_protocol::path::GuestPath;
use agent_requests::{Ephemeral, Local, TmpfsOptions};
use agent_scratch_disk::{Place, Scratch, ScratchError, Volume as OnDisk};
use rustix::mount::{MountFlags, UnmountFlags};
use thiserror::Error;

use crate::shared_root::directory_below;

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
            fs::create_dir_all(path)?;
            mount_tmpfs(path.as_str(), &options).map(|()| Kind::Mount)
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
                    volume.bind(&target)?;
                    Ok(Kind::OnDisk(volume))
                }
                (Place::Memory, size) => {
                    let options = TmpfsOptions {
                        size,
                        mode: Some(storage.mode),
                        group: storage.group,
                        no_exec: false,
                    };
                    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
                    mount_tmpfs(&target, &options).map(|()| Kind::Mount)
                }
            }
        })
    }

    fn take(
        &self,
        mount_point: GuestPath,
        shared: bool,
        make: impl FnOnce(&GuestPath) -> io::Result<Kind>,
    ) -> Result<GuestPath, StorageError> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = volumes.get_mut(&mount_point) {
            volume.users += 1;
            return Ok(mount_point);
        }
        match make(&mount_point) {
            Ok(kind) => {
                volumes.insert(
                    mount_point.clone(),
                    Volume {
                        kind,
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

/// Gives a fresh directory its group and its permissions.
fn own(directory: &File, storage: &Local) -> io::Result<()> {
    fchown(directory, None, storage.group)?;
    let set_group = if storage.group.is_some() { 0o2000 } else { 0 };
    directory.set_permissions(fs::Permissions::from_mode(storage.mode | set_group))
}

fn mount_tmpfs(target: &str, options: &TmpfsOptions) -> io::Result<()> {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if options.no_exec {
        flags |= MountFlags::NOEXEC;
    }
    let text = CString::new(tmpfs_text(options))?;
    Ok(rustix::mount::mount(
        "tmpfs",
        target,
        "tmpfs",
        flags,
        text.as_c_str(),
    )?)
}

fn tmpfs_text(options: &TmpfsOptions) -> String {
    let set_group = if options.group.is_some() { 0o2000 } else { 0 };
    let mut text = format!("mode={:o}", options.mode.unwrap_or(0o777) | set_group);
    if let Some(size) = options.size {
        text.push_str(&format!(",size={size}"));
    }
    if let Some(group) = options.group {
        text.push_str(&format!(",gid={group}"));
    }
    text
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
                    Ok(Kind::Mount)
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
        assert_eq!(tmpfs_text(&options), "mode=3777,size=4096,gid=7");
        assert_eq!(tmpfs_text(&TmpfsOptions::default()), "mode=777");
    }
}
