//! Settles a layer that was built apart against the layers below it.
//!
//! Three things of a layer depend on what lies below:
//!
//! * a directory that it only implied has the attributes of the one below; and if
//!   there is a symbolic link below, what the layer put "into" the link belongs
//!   where the link points ([`relocate`]);
//! * a whiteout hides what is there, and of a whiteout of nothing nothing may be
//!   seen, not even the directory in which it stands ([`whiteouts`]);
//! * a hard link to a file below is the same file under two names ([`links`]).
//!
//! The kernel itself is asked what lies below: the lower layers are mounted
//! read-only, attached nowhere, so that its answer is what a container would see.

mod attributes;
mod links;
mod relocate;
mod whiteouts;

use std::{os::fd::OwnedFd, path::PathBuf};

use agent_image_registry::{Deadline, Over};
pub(crate) use attributes::copy_attributes;
pub(super) use attributes::is_opaque;
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat,
    },
    io::Errno,
};

use super::{Layer, stack};
use crate::{
    mount::{MountError, overlay},
    tree::{Notes, TreeError, TreePath, Walk, is_whiteout, open_root, shown, tree_failed},
};

/// Why a layer cannot lie on those below it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// The layers below cannot be mounted to look at them.
    #[error("the layers below it cannot be looked at")]
    View(#[source] MountError),
    /// A file operation.
    #[error("it cannot be fitted onto the layers below it")]
    Tree(#[from] TreeError),
    /// A hard link to nothing.
    #[error("its entry `{link}` is a hard link to `{target}`, which is no file of the image")]
    LinkTarget {
        /// The link.
        link: String,
        /// Its target.
        target: String,
    },
    /// The layer has two things in one place, once through a link below and once directly.
    #[error(
        "its entry `{0}` is there twice: once by its own name and once through a symbolic link of a layer below"
    )]
    Conflict(String),
    /// Links below that lead in a circle.
    #[error("its entry `{0}` lies behind too many symbolic links of the layers below")]
    TooManyLinks(String),
    /// There was no more time for it.
    #[error("fitting it onto the layers below it was not finished")]
    Stopped(#[from] Over),
}

/// Settles the layer in `root` on `below` (bottom first).
pub fn settle(
    root: &std::path::Path,
    notes: &Notes,
    below: &[Layer],
    deadline: &Deadline,
) -> Result<(), SettleError> {
    let below = if notes.root_opaque { &[] } else { below };
    let root = open_root(root).map_err(tree_failed("open", b"root"))?;
    let view = view(below)?;
    let mut settling = Settling {
        root,
        view,
        notes: notes.clone(),
        deadline,
    };
    settling.renew_removed_directories()?;
    settling.directories()?;
    settling.hide()?;
    // Those that were made to hold a whiteout.
    settling.directories()?;
    settling.links()
}

/// What lies below, as one tree; `None` if nothing does.
fn view(below: &[Layer]) -> Result<Option<OwnedFd>, SettleError> {
    let lower: Vec<PathBuf> = stack(below)
        .into_iter()
        .map(|layer| layer.root.clone())
        .collect();
    match lower.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(
            open_root(only).map_err(tree_failed("open", b"layer"))?,
        )),
        several => overlay(several, None).map(Some).map_err(SettleError::View),
    }
}

struct Settling<'a> {
    root: OwnedFd,
    view: Option<OwnedFd>,
    /// Still to be done, parents before children.
    notes: Notes,
    deadline: &'a Deadline,
}

fn as_name(path: &TreePath) -> &[u8] {
    if path.is_root() {
        b"."
    } else {
        path.as_bytes()
    }
}

fn open_at(root: &OwnedFd, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(
        root,
        as_name(path),
        flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

/// A directory below a layer's root, to look at and to change.
pub(super) fn open_directory(root: &OwnedFd, path: &TreePath) -> rustix::io::Result<OwnedFd> {
    open_at(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn is_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

impl Settling<'_> {
    /// The directory in the layer, opened for changes.
    fn own(&self, path: &TreePath) -> Result<OwnedFd, TreeError> {
        open_directory(&self.root, path).map_err(tree_failed("open", path.as_bytes()))
    }

    /// What lies below at exactly this path, unless the layer hides it.
    fn look(&self, path: &TreePath) -> Result<Option<(OwnedFd, Stat)>, TreeError> {
        let Some(view) = &self.view else {
            return Ok(None);
        };
        if self.is_hidden(path)? {
            return Ok(None);
        }
        // With `O_PATH` a link at the end is not followed but opened itself.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let Some((parent, name)) = path.split_last() else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = resolve | ResolveFlags::NO_SYMLINKS;
        let parent = match openat2(view, as_name(&parent), flags, Mode::empty(), resolve) {
            Ok(fd) => fd,
            Err(error) if is_absent(error) => return Ok(None),
            Err(error) => return Err(tree_failed("look below at", path.as_bytes())(error)),
        };
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if !is_whiteout(&stat) => Ok(Some((parent, stat))),
            Ok(_) => Ok(None),
            Err(error) if is_absent(error) => Ok(None),
            Err(error) => Err(tree_failed("look below at", path.as_bytes())(error)),
        }
    }

    /// Whether a directory above this path in the layer hides what is below.
    fn is_hidden(&self, path: &TreePath) -> Result<bool, TreeError> {
        let mut ancestor = path.clone();
        ancestor.pop();
        while !ancestor.is_root() {
            match open_at(&self.root, &ancestor, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) if is_opaque(&fd) => return Ok(true),
                Ok(_) | Err(Errno::NOENT) => {}
                // Something else than a directory hides what is below it.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
                Err(error) => return Err(tree_failed("open", ancestor.as_bytes())(error)),
            }
            ancestor.pop();
        }
        Ok(false)
    }

    /// What the image has at exactly this path: the layer's own, or what lies below.
    fn found(&self, path: &TreePath) -> Result<Found, SettleError> {
        if let Some((parent, stat)) = self.own_entry(path)? {
            return Found::of(&parent, path, &stat);
        }
        match self.look(path)? {
            Some((parent, stat)) => Found::of(&parent, path, &stat),
            None => Ok(Found::Nothing),
        }
    }

    /// What the layer itself has at exactly this path, whiteouts included.
    fn own_entry(&self, path: &TreePath) -> Result<Option<(OwnedFd, Stat)>, TreeError> {
        let Some((parent, name)) = path.split_last() else {
            return Ok(None);
        };
        let parent = match open_at(&self.root, &parent, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(error) if is_absent(error) => return Ok(None),
            Err(error) => return Err(tree_failed("open", parent.as_bytes())(error)),
        };
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((parent, stat))),
            Err(error) if is_absent(error) => Ok(None),
            Err(error) => Err(tree_failed("look at", path.as_bytes())(error)),
        }
    }

    /// Where the image's directory of this name is, links followed as `chroot` would;
    /// `None` if there is none.
    fn directory_at(&self, path: &TreePath) -> Result<Option<TreePath>, SettleError> {
        let mut walk = Walk::along(path);
        while let Some(next) = walk.step() {
            match self.found(&next)? {
                Found::Directory => walk.enter(next),
                Found::Link(target) => walk
                    .follow(&target)
                    .map_err(|_| SettleError::TooManyLinks(shown(path.as_bytes())))?,
                Found::Other | Found::Nothing => return Ok(None),
            }
        }
        Ok(Some(walk.end()))
    }

    fn directories(&mut self) -> Result<(), SettleError> {
        while let Some(path) = self.notes.implied.pop_first() {
            self.deadline.check()?;
            self.directory(&path)?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &TreePath) -> Result<(), SettleError> {
        if path.is_root() {
            return Ok(());
        }
        let Some((parent, stat)) = self.look(path)? else {
            return Ok(());
        };
        let Some((_, name)) = path.split_last() else {
            return Ok(());
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(&parent, name, flags, Mode::empty())
                    .map_err(tree_failed("open below", path.as_bytes()))?;
                copy_attributes(&below, &self.own(path)?, path)?;
                Ok(())
            }
            FileType::Symlink => {
                let target = self.canonical(path)?;
                self.relocate(path, &target)
            }
            // The layer's directory hides a file below.
            _ => Ok(()),
        }
    }

    /// Where a path leads below, its links followed as `chroot` would.
    fn canonical(&self, path: &TreePath) -> Result<TreePath, SettleError> {
        let mut walk = Walk::along(path);
        while let Some(next) = walk.step() {
            let below = self.look(&next)?;
            let found = below.map(|(parent, stat)| Found::of(&parent, &next, &stat));
            match found.transpose()? {
                Some(Found::Link(target)) => walk
                    .follow(&target)
                    .map_err(|_| SettleError::TooManyLinks(shown(path.as_bytes())))?,
                _ => walk.enter(next),
            }
        }
        Ok(walk.end())
    }
}

/// What stands at a path.
enum Found {
    Nothing,
    Directory,
    Link(Vec<u8>),
    Other,
}

impl Found {
    fn of(parent: &OwnedFd, path: &TreePath, stat: &Stat) -> Result<Self, SettleError> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Self::Directory),
            FileType::Symlink => {
                let target = readlinkat(parent, path.name(), Vec::new())
                    .map_err(tree_failed("read link", path.as_bytes()))?;
                Ok(Self::Link(target.into_bytes()))
            }
            _ if is_whiteout(stat) => Ok(Self::Nothing),
            _ => Ok(Self::Other),
        }
    }
}
