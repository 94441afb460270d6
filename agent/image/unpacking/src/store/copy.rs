//! A second copy of a layer that is not settled yet, for its second place in an image.
//!
//! Directories are made anew, since settling changes them. Everything else is a hard link:
//! settling moves, adds and removes files, but changes none.

use std::{io, os::fd::OwnedFd};

use agent_image_registry::Deadline;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, linkat, mkdirat, statat},
    io::Errno,
};

use super::{
    Staging, Store, StoreError, failed,
    settle::{copy_attributes, is_opaque, open_directory},
};
use crate::tree::{TreePath, open_root, set_opaque};

/// Paths of directories that are still to be copied.
const PENDING_MAX_BYTES: usize = 6 * 1024 * 1024;

impl Store {
    /// A copy of a layer in a staging directory of its own.
    ///
    /// # Errors
    /// It cannot be copied, or takes more memory or time than it may; it can be fetched again.
    pub fn copy(&self, staging: &Staging, deadline: &Deadline) -> Result<Staging, StoreError> {
        let copy = self.stage()?;
        copy_tree(staging, &copy, deadline).map_err(failed("copy", &staging.root()))?;
        Ok(copy)
    }
}

fn copy_tree(from: &Staging, to: &Staging, deadline: &Deadline) -> io::Result<()> {
    let (from, to) = (open_root(&from.root())?, open_root(&to.root())?);
    let mut pending = vec![TreePath::default()];
    let mut bytes = 0usize;
    while let Some(path) = pending.pop() {
        deadline.check().map_err(io::Error::other)?;
        bytes = bytes.saturating_sub(cost(&path));
        let (source, target) = (open_directory(&from, &path)?, open_directory(&to, &path)?);
        for name in copy_entries(&source, &target)? {
            let directory = path.join(&name);
            bytes += cost(&directory);
            pending.push(directory);
        }
        if bytes > PENDING_MAX_BYTES {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // Nothing more is made in it, so its time stays.
        if is_opaque(&source) {
            set_opaque(&target, path.as_bytes()).map_err(io::Error::other)?;
        }
        copy_attributes(&source, &target, &path).map_err(io::Error::other)?;
    }
    Ok(())
}

fn cost(path: &TreePath) -> usize {
    path.as_bytes().len() + size_of::<TreePath>()
}

/// Links what is no directory, makes what is one, and gives the names of those.
fn copy_entries(source: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        if kind != FileType::Directory {
            linkat(source, name, target, name, AtFlags::empty())?;
            continue;
        }
        mkdirat(target, name, Mode::RWXU)?;
        directories.push(name.to_bytes().to_vec());
        if directories.len() > PENDING_MAX_BYTES / size_of::<TreePath>() {
            return Err(Errno::NOMEM);
        }
    }
    Ok(directories)
}
