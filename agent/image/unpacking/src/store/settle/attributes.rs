//! Attributes of files and directories that are settled.

use std::os::fd::OwnedFd;

use rustix::fs::{Stat, fgetxattr, flistxattr, fstat, futimens};

use crate::{
    tar::{Attributes, Time},
    tree::{
        OPAQUE, TreeError, TreePath, directory_attributes, is_overlay_xattr, times, tree_failed,
    },
};

const XATTR_MAX_BYTES: usize = 64 * 1024;

/// Runs a change in a directory without a trace in its time.
pub(super) fn unchanged<T>(
    directory: &OwnedFd,
    change: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let mtime = mtime(&fstat(directory)?);
    let result = change()?;
    futimens(directory, &times(mtime))?;
    Ok(result)
}

fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

pub(in crate::store) fn is_opaque(fd: &OwnedFd) -> bool {
    let mut value = [0u8; 1];
    fgetxattr(fd, OPAQUE, &mut value[..]).is_ok_and(|_| value == *b"y")
}

pub(super) fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Gives one open file all attributes of another.
pub(crate) fn copy_attributes(
    from: &OwnedFd,
    to: &OwnedFd,
    path: &TreePath,
) -> Result<(), TreeError> {
    let stat = fstat(from).map_err(tree_failed("look at", path.as_bytes()))?;
    let xattrs = xattrs(from).map_err(tree_failed(
        "read the extended attributes of",
        path.as_bytes(),
    ))?;
    let attributes = Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(&stat),
        xattrs,
    };
    directory_attributes(to, &attributes, path.as_bytes())?;
    futimens(to, &times(attributes.mtime)).map_err(tree_failed("set the times of", path.as_bytes()))
}

fn xattrs(fd: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; XATTR_MAX_BYTES];
    let length = flistxattr(fd, &mut list[..])?;
    list.truncate(length);
    let mut pairs = Vec::new();
    for key in list
        .split(|byte| *byte == 0)
        .filter(|key| !key.is_empty() && !is_overlay_xattr(key))
    {
        let mut value = vec![0; XATTR_MAX_BYTES];
        let length = fgetxattr(fd, key, &mut value[..])?;
        value.truncate(length);
        pairs.push((key.to_vec(), value));
    }
    Ok(pairs)
}
