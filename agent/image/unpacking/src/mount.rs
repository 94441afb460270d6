//! overlayfs mounts through the new mount API.
//!
//! The classic `mount(2)` takes its options as one page of text, which 127 layers
//! with 64-digit names overflow. `fsconfig(2)` adds one layer at a time
//! (`lowerdir+`, Linux 6.5; guests run 6.12), and gives a mount that is attached
//! nowhere until it is complete, so that a failure leaves nothing to undo.

use std::{
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
    },
};

/// Longest text that `fsconfig` takes, less its terminator.
const VALUE_MAX: usize = 255;

/// Where a container's changes go.
pub(crate) struct Upper {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// A step of making it.
    #[error("cannot {step}{hint}")]
    System {
        /// Which step.
        step: &'static str,
        /// What may be the reason.
        hint: &'static str,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A directory of it.
    #[error("cannot add `{path}` to an overlay mount")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// Attaching or detaching it.
    #[error("cannot {step} `{path}`")]
    Place {
        /// Which of the two.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

fn failed(step: &'static str, hint: &'static str) -> impl FnOnce(Errno) -> MountError {
    move |source| MountError::System { step, hint, source }
}

/// Mounts layers, top first, without attaching the mount; read-only without `upper`.
pub(crate) fn overlay(lower: &[PathBuf], upper: Option<&Upper>) -> Result<OwnedFd, MountError> {
    let hint = "; the kernel needs overlayfs";
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(failed("prepare an overlay mount", hint))?;
    // Kept open until the mount is made: their names may be in use.
    let mut open = Vec::new();
    for path in lower {
        add(&context, "lowerdir+", path, &mut open)?;
    }
    // Device nodes of an image are kept as they are and cannot be used.
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    match upper {
        Some(upper) => {
            add(&context, "upperdir", &upper.upper, &mut open)?;
            add(&context, "workdir", &upper.work, &mut open)?;
        }
        None => {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            fsconfig_set_flag(&context, "ro").map_err(failed("make an overlay read-only", ""))?;
        }
    }
    let hint = "; the store's file system must support overlay layers";
    fsconfig_create(&context).map_err(failed("make an overlay mount", hint))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("mount an overlay", ""))
}

fn add(
    context: &OwnedFd,
    key: &str,
    path: &Path,
    open: &mut Vec<OwnedFd>,
) -> Result<(), MountError> {
    let directory = |source| MountError::Directory {
        path: path.to_owned(),
        source,
    };
    if path.as_os_str().len() <= VALUE_MAX {
        return fsconfig_set_string(context, key, path.as_os_str().as_bytes()).map_err(directory);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty()).map_err(directory)?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open.push(fd);
    fsconfig_set_string(context, key, name.as_str()).map_err(directory)
}

/// Attaches a mount to a directory.
pub(crate) fn attach(mount: &OwnedFd, target: &Path) -> Result<(), MountError> {
    move_mount(
        mount,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|source| MountError::Place {
        step: "mount on",
        path: target.to_owned(),
        source,
    })
}

/// Detaches the mount on a directory; one still in use goes when its last user does.
pub(crate) fn detach(target: &Path) -> Result<(), MountError> {
    unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|source| {
        MountError::Place {
            step: "unmount",
            path: target.to_owned(),
            source,
        }
    })
}
