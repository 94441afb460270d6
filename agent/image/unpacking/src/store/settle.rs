//! Settles a layer that was built apart against the layers below it.
//!
//! Three things of a layer depend on what lies below:
//!
//! * a directory that it only implied has the attributes of the one below; and if
//!   there is a symbolic link below, what the layer put "into" the link belongs
//!   where the link points;
//! * a whiteout of nothing must go, because overlayfs shows it in directories that
//!   no other layer has;
//! * a hard link to a file below becomes a copy of it.
//!
//! The kernel itself is asked what lies below: the lower layers are mounted
//! read-only, attached nowhere, so that its answer is what a container would see.

use std::{os::fd::OwnedFd, path::PathBuf};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fgetxattr, flistxattr,
        fstat, futimens, mkdirat, openat, openat2, readlinkat, renameat_with, statat, unlinkat,
    },
    io::Errno,
};

use super::{Layer, stack};
use crate::{
    mount::{MountError, overlay},
    tar::{Attributes, Time},
    tree::{
        Notes, OPAQUE, TreeError, TreePath, default_directory, directory_attributes,
        is_overlay_xattr, is_whiteout, open_root, set_opaque, shown, times, tree_failed,
    },
};

/// As in Linux.
const LINKS_MAX: u32 = 40;
const XATTR_MAX_BYTES: usize = 64 * 1024;

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
}

/// Settles the layer in `root` on `below` (bottom first).
pub fn settle(root: &std::path::Path, notes: &Notes, below: &[Layer]) -> Result<(), SettleError> {
    let below = if notes.root_opaque { &[] } else { below };
    let root = open_root(root).map_err(tree_failed("open", b"root"))?;
    let view = view(below)?;
    let mut settling = Settling {
        root,
        view,
        notes: notes.clone(),
    };
    while let Some(path) = settling.notes.implied.pop_first() {
        settling.directory(&path)?;
    }
    while let Some((link, target)) = settling.notes.links.pop_first() {
        settling.link(&link, &target)?;
    }
    settling
        .notes
        .whiteouts
        .iter()
        .try_for_each(|path| settling.whiteout(path))
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

struct Settling {
    root: OwnedFd,
    view: Option<OwnedFd>,
    /// Still to be done, parents before children.
    notes: Notes,
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

fn is_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

impl Settling {
    /// The directory in the layer, opened for changes.
    fn own(&self, path: &TreePath) -> Result<OwnedFd, TreeError> {
        open_at(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(tree_failed("open", path.as_bytes()))
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
        let mut here = TreePath::default();
        let mut links = 0;
        let mut ahead: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        while let Some(name) = ahead.pop() {
            if name == b".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            let target = match self.look(&next)? {
                Some((parent, stat))
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink =>
                {
                    readlinkat(&parent, name.as_slice(), Vec::new())
                        .map_err(tree_failed("read link below", next.as_bytes()))?
                }
                _ => {
                    here = next;
                    continue;
                }
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(SettleError::TooManyLinks(shown(path.as_bytes())));
            }
            let target = target.into_bytes();
            if target.starts_with(b"/") {
                here = TreePath::default();
            }
            let parts = target.split(|byte| *byte == b'/').rev();
            ahead.extend(
                parts
                    .filter(|part| !matches!(*part, b"" | b"."))
                    .map(<[u8]>::to_vec),
            );
        }
        Ok(here)
    }

    /// Moves an implied directory's content to where the link below it leads.
    fn relocate(&mut self, from: &TreePath, to: &TreePath) -> Result<(), SettleError> {
        if to.is_within(from) || from.is_within(to) && !to.is_root() {
            return Err(SettleError::Conflict(shown(from.as_bytes())));
        }
        self.ensure(to)?;
        self.merge(from, to)?;
        // What was noted below the old place holds below the new one.
        let moved = |path: &TreePath| {
            let mut target = to.clone();
            path.components()
                .skip(from.components().count())
                .for_each(|component| target.push(component));
            target
        };
        for set in [&mut self.notes.implied, &mut self.notes.whiteouts] {
            let noted: Vec<TreePath> = set.range(from.below()).cloned().collect();
            for path in noted {
                set.remove(&path);
                set.insert(moved(&path));
            }
        }
        let links = std::mem::take(&mut self.notes.links);
        let links = links
            .into_iter()
            .map(|(link, target)| match link.is_within(from) {
                true => (moved(&link), target),
                false => (link, target),
            });
        self.notes.links = links.collect();
        Ok(())
    }

    /// Makes a directory and its parents in the layer; they are implied then.
    fn ensure(&mut self, path: &TreePath) -> Result<(), SettleError> {
        let mut here = TreePath::default();
        for name in path.components() {
            let parent = here.clone();
            here.push(name);
            match open_at(&self.root, &here, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(_) => return Err(SettleError::Conflict(shown(here.as_bytes()))),
            }
            let parent = self.own(&parent)?;
            unchanged(&parent, || mkdirat(&parent, name, Mode::RWXU))
                .map_err(tree_failed("make", here.as_bytes()))?;
            let made = self.own(&here)?;
            directory_attributes(&made, &default_directory(), here.as_bytes())?;
            futimens(&made, &times(Time::default()))
                .map_err(tree_failed("set the times of", here.as_bytes()))?;
            self.notes.implied.insert(here.clone());
        }
        Ok(())
    }

    fn merge(&mut self, from: &TreePath, to: &TreePath) -> Result<(), SettleError> {
        let (source, target) = (self.own(from)?, self.own(to)?);
        if is_opaque(&source) {
            set_opaque(&target, to.as_bytes())?;
        }
        let entries = names(&source).map_err(tree_failed("read", from.as_bytes()))?;
        for name in entries {
            let result = unchanged(&target, || {
                renameat_with(
                    &source,
                    name.as_slice(),
                    &target,
                    name.as_slice(),
                    RenameFlags::NOREPLACE,
                )
            });
            match result {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let (deeper, there) = (from.join(&name), to.join(&name));
                    let both = [&deeper, &there].map(|path| self.own(path).is_ok());
                    if both != [true, true] {
                        return Err(SettleError::Conflict(shown(deeper.as_bytes())));
                    }
                    self.merge(&deeper, &there)?;
                }
                Err(error) => {
                    return Err(tree_failed("move", from.join(&name).as_bytes())(error).into());
                }
            }
        }
        let Some((parent, name)) = from.split_last() else {
            return Ok(());
        };
        let parent = self.own(&parent)?;
        unchanged(&parent, || unlinkat(&parent, name, AtFlags::REMOVEDIR))
            .map_err(tree_failed("remove", from.as_bytes()))?;
        Ok(())
    }

    /// Removes a whiteout that hides nothing.
    fn whiteout(&self, path: &TreePath) -> Result<(), SettleError> {
        if self.look(path)?.is_some() {
            return Ok(());
        }
        let Some((parent, name)) = path.split_last() else {
            return Ok(());
        };
        let parent = match open_at(&self.root, &parent, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(error) if is_absent(error) => return Ok(()),
            Err(error) => return Err(tree_failed("open", path.as_bytes())(error).into()),
        };
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => {
                unchanged(&parent, || unlinkat(&parent, name, AtFlags::empty()))
                    .map_err(|error| tree_failed("remove whiteout", path.as_bytes())(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Copies the file below that a hard link names.
    fn link(&mut self, link: &TreePath, target: &TreePath) -> Result<(), SettleError> {
        let missing = || SettleError::LinkTarget {
            link: shown(link.as_bytes()),
            target: shown(target.as_bytes()),
        };
        let place = self.canonical(target)?;
        let Some((parent, stat)) = self.look(&place)? else {
            return Err(missing());
        };
        let Some((_, name)) = place.split_last() else {
            return Err(missing());
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(missing());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = openat(&parent, name, flags, Mode::empty())
            .map_err(tree_failed("open", target.as_bytes()))?;
        let Some((at, name)) = link.split_last() else {
            return Err(missing());
        };
        let at = self.own(&at)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = unchanged(&at, || openat(&at, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(tree_failed("create", link.as_bytes()))?;
        let mut copy = std::fs::File::from(copy);
        std::io::copy(
            &mut std::fs::File::from(below.try_clone().map_err(|_| missing())?),
            &mut copy,
        )
        .map_err(|error| {
            tree_failed("copy", link.as_bytes())(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        copy_attributes(&below, &OwnedFd::from(copy), link)?;
        Ok(())
    }
}

/// Runs a change in a directory without a trace in its time.
fn unchanged<T>(
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

fn is_opaque(fd: &OwnedFd) -> bool {
    let mut value = [0u8; 1];
    fgetxattr(fd, OPAQUE, &mut value[..]).is_ok_and(|_| value == *b"y")
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
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
