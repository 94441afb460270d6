//! One version of a ConfigMap, Secret or token at a time.
//!
//! Kubernetes keeps such a volume as a directory for each version, a link `..data` to the one
//! that counts, and a link through it for each key. The host copies a new version beside the
//! old one and then points `..data` at it, which is one step for whoever reads. What the
//! kubelet does next, the guest does here: the other versions go, and the names of keys that
//! the new one lacks. The protocol has no request that would say so.

use std::{
    ffi::{CStr, OsStr},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
};

use agent_image_unpacking::remove_tree;
use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, openat2, readlinkat, unlinkat},
    io::Errno,
};

use crate::shared_root::resolve;

/// The link to the version that counts.
pub(crate) const LINK: &str = "..data";
/// What names of versions, and no keys, begin with.
const VERSION: &[u8] = b"..";

/// Removes all versions but this one from a volume, and keys that it does not have.
pub(crate) fn keep_only(volume: &OwnedFd, version: &str) -> io::Result<()> {
    let kept = version.split('/').next().unwrap_or(version);
    let mut entries = Dir::read_from(volume)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || name == LINK.as_bytes() {
            continue;
        }
        if name.starts_with(VERSION) {
            if name != kept.as_bytes() && entry.file_type().is_dir() {
                remove_tree(volume, name)?;
            }
        } else if is_lost(volume, entry.file_name(), kept)? {
            unlinkat(volume, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Whether a name is a link through `..data` to nothing in this version. No link is followed: in a
/// volume that others may write to, the kernel follows only one's own.
fn is_lost(volume: &OwnedFd, name: &CStr, version: &str) -> io::Result<bool> {
    let target = match readlinkat(volume, name, Vec::new()) {
        Err(Errno::INVAL) => return Ok(false),
        target => target?,
    };
    let through = target.to_bytes().strip_prefix(LINK.as_bytes());
    let Some(key) = through.and_then(|rest| rest.strip_prefix(b"/")) else {
        return Ok(false);
    };
    let path = Path::new(version).join(OsStr::from_bytes(key));
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(volume, path, flags, Mode::empty(), resolve()) {
        Err(Errno::NOENT) => Ok(true),
        Ok(_) | Err(Errno::LOOP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn one_version_stays_and_the_names_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for version in ["..1", "..2", "..3"] {
            fs::create_dir_all(root.join(version).join("a/b")).unwrap();
            fs::write(root.join(version).join("colour"), version).unwrap();
        }
        fs::write(root.join("..1/goes"), "soon").unwrap();
        symlink("..3", root.join(LINK)).unwrap();
        for key in ["colour", "goes", "a"] {
            symlink(format!("..data/{key}"), root.join(key)).unwrap();
        }
        symlink("elsewhere", root.join("dangling")).unwrap();
        symlink("/etc", root.join("..link")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        let directory: OwnedFd = fs::File::open(root).unwrap().into();
        keep_only(&directory, "..3").unwrap();
        let expected = ["..3", "..data", "..link", "a", "colour", "dangling", "file"];
        assert_eq!(names(root), expected);
        assert_eq!(fs::read(root.join("colour")).unwrap(), b"..3");
        keep_only(&directory, "..3").unwrap();
        assert_eq!(names(root), expected);
    }
}
