//! Volumes on the scratch disk: a directory each, bound to where the pod expects it,
//! in a project of its own if it has a limit. They end with the guest.
//!
//! The limit is ext4's project quota. It holds for every process of the pod that has
//! not `CAP_SYS_RESOURCE`, which containers do not have unless their pod asks for it;
//! and the owner of a file may move it to another project. So it keeps a pod from
//! filling its disk by accident; it does not guard a pod against itself.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{kernel, scratch::ROOT};

/// Project 0 is everybody's.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A directory on the disk.
#[derive(Debug)]
pub struct Volume(PathBuf);

impl Volume {
    /// Makes one that holds at most so many bytes.
    ///
    /// # Errors
    ///
    /// When the directory or its limit cannot be made.
    pub fn make(limit_bytes: Option<u64>) -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = Path::new(ROOT).join("volumes");
        let volume = Self(parent.join(number.to_string()));
        fs::create_dir(&volume.0)?;
        if let Some(bytes) = limit_bytes {
            let directory = File::open(&volume.0)?;
            kernel::set_project(&directory, number)?;
            kernel::set_limit(&directory, number, bytes)?;
        }
        Ok(volume)
    }

    /// Where it is on the disk.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it appear in another place; answers with its root there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to mount it there.
    pub fn bind(&self, target: &OwnedFd) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root = open_tree(CWD, &self.0, flags)?;
        let whole =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&root, c"", target, c"", whole)?;
        Ok(root)
    }
}
