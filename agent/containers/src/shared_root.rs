//! Names below the root that the host may write to, resolved without links: whatever
//! links the host or a workload has made, no name leads out of it, nor into a volume
//! that is mounted in it: those are the workload's.

use std::{io, os::fd::OwnedFd, path::Path};

use agent_protocol::path::GuestPath;
use agent_requests::{
    FileOwner,
    paths::{SANDBOX_ROOT, SHARED_ROOT},
};
use rustix::{
    fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid, fchown, mkdirat, openat, openat2},
    io::Errno,
};

/// Permissions of parents for which none were given.
const PARENT_MODE: u32 = 0o755;

/// A step on the way to a file failed.
#[derive(Debug)]
pub(crate) struct StepError {
    /// What was tried, as the words before a path.
    pub(crate) step: &'static str,
    /// Why it failed.
    pub(crate) source: io::Error,
}

pub(crate) type Step<T> = Result<T, StepError>;

pub(crate) fn step<T, E: Into<io::Error>>(name: &'static str, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| StepError {
        step: name,
        source: error.into(),
    })
}

/// Opens the root itself.
pub(crate) fn open_root(root: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, root, flags, Mode::empty())
}

/// Opens a directory below [`SHARED_ROOT`] or [`SANDBOX_ROOT`], making what is missing of it;
/// no link is followed on the way.
///
/// # Errors
///
/// When something else is in its place.
pub(crate) fn directory_below(path: &GuestPath) -> io::Result<OwnedFd> {
    let below = |root| Some((root, path.below(root)?));
    let (root, relative) = below(SHARED_ROOT)
        .or_else(|| below(SANDBOX_ROOT))
        .ok_or(io::ErrorKind::NotFound)?;
    let root = open_root(Path::new(root))?;
    let owner = FileOwner {
        uid: None,
        gid: None,
    };
    make_parents(root, relative, None, owner).map_err(|error| error.source)
}

pub(crate) fn open_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(parent, name, flags, Mode::empty(), resolve())
}

/// A handle of what a path below a directory names, to mount it or to look at it.
pub(crate) fn open_below(root: &OwnedFd, relative: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat2(root, relative, flags, Mode::empty(), resolve())?)
}

pub(crate) fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

/// Opens the directories on the way, making those that are missing; only the last
/// of them gets the owner.
pub(crate) fn make_parents(
    root: OwnedFd,
    parents: &str,
    mode: Option<u32>,
    owner: FileOwner,
) -> Step<OwnedFd> {
    let mut current = root;
    let mut names = parents
        .split('/')
        .filter(|name| !name.is_empty())
        .peekable();
    while let Some(name) = names.next() {
        let made = match mkdirat(&current, name, Mode::from(mode.unwrap_or(PARENT_MODE))) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return step("make the directory of", Err(error)),
        };
        let next = step("open the directory of", open_directory(&current, name))?;
        if made && names.peek().is_none() {
            step("set the owner of the directory of", set_owner(&next, owner))?;
        }
        current = next;
    }
    Ok(current)
}

pub(crate) fn ids(owner: FileOwner) -> (Option<Uid>, Option<Gid>) {
    (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw))
}

pub(crate) fn set_owner(fd: impl std::os::fd::AsFd, owner: FileOwner) -> rustix::io::Result<()> {
    let (uid, gid) = ids(owner);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    fchown(fd, uid, gid)
}
