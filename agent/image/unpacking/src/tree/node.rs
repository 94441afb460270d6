//! Sets an entry's attributes: owner, then mode, then xattrs, then times, because
//! each of the first two can undo what comes after it in this list.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
        fchmod, fchown, fsetxattr, futimens, lsetxattr, openat, utimensat,
    },
    io::Errno,
};

use super::{TreeError, failed};
use crate::tar::{Attributes, Time};

/// Says to overlayfs that a directory hides those below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
/// Whiteouts are character devices 0:0; their mode says nothing.
pub(crate) const WHITEOUT_MODE: Mode = Mode::empty();

pub(super) fn create_file(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::RUSR | Mode::WUSR)
}

pub(super) fn file_attributes(
    file: &OwnedFd,
    attributes: &Attributes,
    name: &[u8],
) -> Result<(), TreeError> {
    directory_attributes(file, attributes, name)?;
    futimens(file, &times(attributes.mtime)).map_err(failed("set the times of", name))
}

/// As for files, without the times: those wait until nothing is made in the directory any more.
pub(crate) fn directory_attributes(
    fd: &OwnedFd,
    attributes: &Attributes,
    name: &[u8],
) -> Result<(), TreeError> {
    let (uid, gid) = ids(attributes);
    fchown(fd, Some(uid), Some(gid)).map_err(failed("set the owner of", name))?;
    fchmod(fd, Mode::from_raw_mode(attributes.mode)).map_err(failed("set the mode of", name))?;
    for (key, value) in image_xattrs(attributes) {
        fsetxattr(fd, key, value, XattrFlags::empty()).map_err(xattr_failed(name))?;
    }
    Ok(())
}

/// A name just made in an open directory, for what cannot be opened itself.
pub(crate) struct Node<'a> {
    at: &'a OwnedFd,
    name: &'a [u8],
}

impl<'a> Node<'a> {
    pub(crate) fn new(at: &'a OwnedFd, name: &'a [u8]) -> Self {
        Self { at, name }
    }

    /// Sets all attributes; symbolic links have no mode.
    pub(crate) fn attributes(
        &self,
        attributes: &Attributes,
        with_mode: bool,
    ) -> Result<(), TreeError> {
        let (uid, gid) = ids(attributes);
        chownat(
            self.at,
            self.name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed("set the owner of", self.name))?;
        if with_mode {
            // The name is a device or pipe made by us a moment ago, so there is no link to follow.
            chmodat(
                self.at,
                self.name,
                Mode::from_raw_mode(attributes.mode),
                AtFlags::empty(),
            )
            .map_err(failed("set the mode of", self.name))?;
        }
        self.xattrs(attributes)?;
        utimensat(
            self.at,
            self.name,
            &times(attributes.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed("set the times of", self.name))
    }

    /// There is no `setxattrat` before Linux 6.13; the descriptor's own link in `/proc` stands in for it.
    fn xattrs(&self, attributes: &Attributes) -> Result<(), TreeError> {
        for (key, value) in image_xattrs(attributes) {
            let mut path = format!("/proc/self/fd/{}/", self.at.as_raw_fd()).into_bytes();
            path.extend_from_slice(self.name);
            lsetxattr(path.as_slice(), key, value, XattrFlags::empty())
                .map_err(xattr_failed(self.name))?;
        }
        Ok(())
    }
}

/// The image's xattrs without overlayfs's own, which an image has no business to set.
fn image_xattrs(attributes: &Attributes) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = attributes
        .xattrs
        .iter()
        .map(|(key, value)| (key.as_slice(), value.as_slice()));
    pairs.filter(|(key, _)| !is_overlay_xattr(key))
}

pub(crate) fn is_overlay_xattr(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

fn xattr_failed(name: &[u8]) -> impl FnOnce(Errno) -> TreeError {
    failed("store an extended attribute of", name)
}

fn ids(attributes: &Attributes) -> (Uid, Gid) {
    (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid))
}

pub(crate) fn times(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
