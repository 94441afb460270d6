//! Open directories of the tree being made.
//!
//! Archives name neighbours one after another, so a few open descriptors answer
//! nearly every lookup. A directory's time changes with each file made in it;
//! so each open directory remembers the time it shall have, and gets it when its
//! descriptor is closed. One that is opened again brings its time along. Hence
//! no list of directories grows with the layer, and none is visited twice.
//!
//! Paths are resolved by `openat2` without following links; only where that
//! meets a link or nothing is the path walked component by component, links
//! followed below the root as `chroot` would.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, fstat, futimens, mkdirat, openat, openat2, readlinkat},
    io::Errno,
};

use super::{
    TreeError, default_directory, failed,
    node::{directory_attributes, times},
    path::TreePath,
    shown,
    walk::Walk,
};
use crate::tar::{Attributes, Time};

/// Enough for a path's ancestors and a few neighbours.
const OPEN_MAX: usize = 24;
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A number for an open directory, valid until the next call that opens one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(usize);

struct Open {
    path: TreePath,
    fd: OwnedFd,
    /// The time it shall have at the end.
    mtime: Time,
    /// Something changed its time.
    dirty: bool,
    used: u64,
}

pub(crate) struct Directories {
    /// The root comes first and stays.
    open: Vec<Open>,
    clock: u64,
}

/// Opens a directory by path, as the root of a tree.
pub fn open_root(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OPEN, Mode::empty())
}

pub(crate) fn open_child(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OPEN, Mode::empty())
}

/// Opens a path without following any link.
fn open_plain(root: &OwnedFd, path: &TreePath) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.is_root() {
        &b"."[..]
    } else {
        path.as_bytes()
    };
    openat2(root, name, OPEN, Mode::empty(), resolve)
}

impl Directories {
    pub(crate) fn new(root: OwnedFd) -> Result<Self, TreeError> {
        directory_attributes(&root, &default_directory(), b".")?;
        let root = Open {
            path: TreePath::default(),
            fd: root,
            mtime: Time::default(),
            dirty: true,
            used: 0,
        };
        Ok(Self {
            open: vec![root],
            clock: 0,
        })
    }

    pub(crate) fn fd(&self, slot: Slot) -> &OwnedFd {
        &self.slot(slot).fd
    }

    /// The descriptor, for making or removing something in the directory.
    pub(crate) fn touch(&mut self, slot: Slot) -> &OwnedFd {
        let open = self.slot_mut(slot);
        open.dirty = true;
        &open.fd
    }

    pub(crate) fn path_of(&self, slot: Slot, name: &[u8]) -> TreePath {
        self.slot(slot).path.join(name)
    }

    pub(crate) fn state_time(&mut self, slot: Slot, mtime: Time) {
        let open = self.slot_mut(slot);
        (open.mtime, open.dirty) = (mtime, true);
    }

    pub(crate) fn state_root(&mut self, attributes: &Attributes) -> Result<(), TreeError> {
        directory_attributes(self.fd(Slot(0)), attributes, b".")?;
        self.state_time(Slot(0), attributes.mtime);
        Ok(())
    }

    /// Makes a directory; its mode is right only after its attributes are set.
    pub(crate) fn make(&mut self, parent: Slot, name: &[u8]) -> rustix::io::Result<()> {
        mkdirat(self.touch(parent), name, Mode::RWXU)
    }

    /// Opens a directory that is known to be in `parent`.
    pub(crate) fn enter(
        &mut self,
        parent: Slot,
        name: &[u8],
        entry: &[u8],
    ) -> Result<Slot, TreeError> {
        let path = self.path_of(parent, name);
        if let Some(slot) = self.known(&path) {
            return Ok(slot);
        }
        let fd = open_child(self.fd(parent), name).map_err(failed("open directory", entry))?;
        self.keep(path, fd, entry)
    }

    /// Opens the directory at `path`, following links below the root and making
    /// what is missing; the second value lists what was made.
    pub(crate) fn open(
        &mut self,
        path: &TreePath,
        entry: &[u8],
    ) -> Result<(Slot, Vec<TreePath>), TreeError> {
        match self.existing(path, entry)? {
            Some(slot) => Ok((slot, Vec::new())),
            None => self.walk(path, entry),
        }
    }

    /// The directory that the layer made at exactly this path; `None` if there is none.
    pub(crate) fn existing(
        &mut self,
        path: &TreePath,
        entry: &[u8],
    ) -> Result<Option<Slot>, TreeError> {
        if let Some(slot) = self.known(path) {
            return Ok(Some(slot));
        }
        match open_plain(self.fd(Slot(0)), path) {
            Ok(fd) => self.keep(path.clone(), fd, entry).map(Some),
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(failed("open the directory of", entry)(error)),
        }
    }

    /// The directory at `path`, links followed, nothing made; `None` if there is none.
    pub(crate) fn find(&mut self, path: &TreePath) -> Result<Option<OwnedFd>, TreeError> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let name = if path.is_root() {
            &b"."[..]
        } else {
            path.as_bytes()
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(self.fd(Slot(0)), name, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(failed("look up", path.as_bytes())(error)),
        }
    }

    fn walk(&mut self, path: &TreePath, entry: &[u8]) -> Result<(Slot, Vec<TreePath>), TreeError> {
        let mut made = Vec::new();
        let mut walk = Walk::along(path);
        while let Some(next) = walk.step() {
            let at = self.open_known(walk.here(), entry)?;
            match self.step(at, &next, entry)? {
                Step::Entered => walk.enter(next),
                Step::Made => {
                    made.push(next.clone());
                    walk.enter(next);
                }
                Step::Link(target) => walk
                    .follow(&target)
                    .map_err(|_| TreeError::TooManyLinks(shown(entry)))?,
            }
        }
        Ok((self.open_known(walk.here(), entry)?, made))
    }

    fn step(&mut self, at: Slot, path: &TreePath, entry: &[u8]) -> Result<Step, TreeError> {
        if self.known(path).is_some() {
            return Ok(Step::Entered);
        }
        let name = path.name();
        match open_child(self.fd(at), name) {
            Ok(fd) => self.keep(path.clone(), fd, entry).map(|_| Step::Entered),
            Err(Errno::NOENT) => self.imply(at, path, entry).map(|()| Step::Made),
            Err(Errno::NOTDIR | Errno::LOOP) => match readlinkat(self.fd(at), name, Vec::new()) {
                Ok(target) => Ok(Step::Link(target.into_bytes())),
                Err(Errno::INVAL) => Err(TreeError::NotADirectory(shown(entry))),
                Err(error) => Err(failed("follow a link to", entry)(error)),
            },
            Err(error) => Err(failed("open the directory of", entry)(error)),
        }
    }

    fn imply(&mut self, at: Slot, path: &TreePath, entry: &[u8]) -> Result<(), TreeError> {
        let name = path.name();
        self.make(at, name)
            .map_err(failed("make the directory of", entry))?;
        let fd = open_child(self.fd(at), name).map_err(failed("open the directory of", entry))?;
        directory_attributes(&fd, &default_directory(), entry)?;
        let slot = self.keep(path.clone(), fd, entry)?;
        self.state_time(slot, Time::default());
        Ok(())
    }

    fn open_known(&mut self, path: &TreePath, entry: &[u8]) -> Result<Slot, TreeError> {
        if let Some(slot) = self.known(path) {
            return Ok(slot);
        }
        let fd =
            open_plain(self.fd(Slot(0)), path).map_err(failed("open the directory of", entry))?;
        self.keep(path.clone(), fd, entry)
    }

    fn known(&mut self, path: &TreePath) -> Option<Slot> {
        self.clock += 1;
        let index = self.open.iter().position(|open| open.path == *path)?;
        self.open[index].used = self.clock;
        Some(Slot(index))
    }

    fn keep(&mut self, path: TreePath, fd: OwnedFd, entry: &[u8]) -> Result<Slot, TreeError> {
        let stat = fstat(&fd).map_err(failed("look at the directory of", entry))?;
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let mtime = Time {
            seconds: stat.st_mtime,
            nanoseconds,
        };
        let kept = Open {
            path,
            fd,
            mtime,
            dirty: false,
            used: self.clock,
        };
        if self.open.len() < OPEN_MAX {
            self.open.push(kept);
            return Ok(Slot(self.open.len() - 1));
        }
        let oldest = (1..self.open.len())
            .min_by_key(|index| self.open[*index].used)
            .unwrap_or(1);
        close(&self.open[oldest])?;
        self.open[oldest] = kept;
        Ok(Slot(oldest))
    }

    /// Drops a directory and those below it, which are about to be removed.
    pub(crate) fn forget(&mut self, path: &TreePath) -> Result<(), TreeError> {
        // Slots are positions, so the gaps are filled with a second root.
        for index in 1..self.open.len() {
            if self.open[index].path.is_within(path) {
                let fd = open_plain(&self.open[0].fd, &TreePath::default())
                    .map_err(failed("open", b"."))?;
                self.open[index] = Open {
                    path: TreePath::default(),
                    fd,
                    mtime: Time::default(),
                    dirty: false,
                    used: 0,
                };
            }
        }
        Ok(())
    }

    /// Gives every open directory its time.
    pub(crate) fn finish(self) -> Result<(), TreeError> {
        self.open.iter().try_for_each(close)
    }

    fn slot(&self, Slot(index): Slot) -> &Open {
        &self.open[index]
    }

    fn slot_mut(&mut self, Slot(index): Slot) -> &mut Open {
        &mut self.open[index]
    }
}

enum Step {
    Entered,
    Made,
    Link(Vec<u8>),
}

fn close(open: &Open) -> Result<(), TreeError> {
    if !open.dirty {
        return Ok(());
    }
    futimens(&open.fd, &times(open.mtime)).map_err(failed("set the times of", open.path.as_bytes()))
}
