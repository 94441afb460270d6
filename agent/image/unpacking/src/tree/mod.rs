//! Turns a layer's archive into a directory that overlayfs can stack.
//!
//! One pass over the entries, every name resolved below one directory by
//! descriptor ([`directories`]), every attribute set through a descriptor or on
//! a name just made ([`node`]). Hostile here: the archive, which names files
//! outside, links through links, replaces what it made, and imitates overlayfs's
//! own markers. The directory is private until the layer is verified, so nothing
//! else moves in it.
//!
//! A layer is built apart from the layers below it, so what depends on them is
//! only noted ([`Notes`]) and settled later: parents that the layer does not
//! state, whiteouts, of which nothing may be seen if they hide nothing, and hard
//! links to files of the layers below.
//!
//! Rules: OCI image specification 1.1, `layer.md`; overlayfs:
//! `Documentation/filesystems/overlayfs.rst` of Linux.

mod content;
mod directories;
mod error;
mod node;
mod notes;
mod path;
mod removal;
mod walk;

use std::{io::BufRead, os::fd::OwnedFd};

use directories::Directories;
pub use directories::open_root;
pub use error::TreeError;
use error::tree_failed as failed;
pub(crate) use error::{shown, tree_failed};
use node::{Node, WHITEOUT_MODE};
pub(crate) use node::{OPAQUE, directory_attributes, is_overlay_xattr, times};
pub use notes::Notes;
pub(crate) use path::TreePath;
pub use removal::{remove_directory, remove_tree};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, XattrFlags, fsetxattr, linkat, mknodat, statat, symlinkat,
        unlinkat,
    },
    io::Errno,
};
pub(crate) use walk::Walk;

use crate::tar::{Attributes, Entry, Kind, Reader};

/// Notes are held in memory, so that many of them are an attack.
const NOTES_MAX_BYTES: usize = 6 * 1024 * 1024;
const NOTE_OVERHEAD_BYTES: usize = 64;

/// Unpacks the archive below `root`, an empty directory that nothing else uses.
///
/// # Errors
/// See [`TreeError`]; the directory is then of no use.
pub(crate) fn unpack<R: BufRead>(
    root: OwnedFd,
    reader: &mut Reader<R>,
) -> Result<Notes, TreeError> {
    let mut tree = Tree {
        directories: Directories::new(root)?,
        notes: Notes::default(),
        entries: 0,
        noted_bytes: 0,
    };
    loop {
        let entry = reader.next_entry().map_err(|source| TreeError::Tar {
            entries: tree.entries,
            source,
        })?;
        let Some(entry) = entry else { break };
        tree.apply(entry, reader)?;
        tree.entries += 1;
    }
    tree.directories.finish()?;
    Ok(tree.notes)
}

struct Tree {
    directories: Directories,
    notes: Notes,
    entries: u64,
    /// What all notes ever made would take.
    noted_bytes: usize,
}

/// What an entry's name means to overlayfs.
enum Mark<'a> {
    None,
    Whiteout(&'a [u8]),
    Opaque,
    /// Left over from aufs, which nobody uses any more.
    Ignored,
}

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

fn mark(name: &[u8]) -> Mark<'_> {
    match name.strip_prefix(WHITEOUT_PREFIX) {
        _ if name == OPAQUE_NAME => Mark::Opaque,
        _ if name.starts_with(AUFS_PREFIX) => Mark::Ignored,
        Some(hidden) => Mark::Whiteout(hidden),
        None => Mark::None,
    }
}

impl Tree {
    fn apply<R: BufRead>(&mut self, entry: Entry, reader: &mut Reader<R>) -> Result<(), TreeError> {
        let path =
            TreePath::parse(&entry.name).ok_or_else(|| TreeError::DotDot(shown(&entry.name)))?;
        let Some((parent, name)) = path.split_last() else {
            return self.root(&entry);
        };
        if parent
            .components()
            .any(|component| component.starts_with(AUFS_PREFIX))
        {
            return Ok(());
        }
        match mark(name) {
            Mark::Opaque => self.opaque(parent, &entry.name),
            Mark::Whiteout(hidden) => {
                if matches!(hidden, b"" | b"." | b"..") {
                    return Err(TreeError::Whiteout(shown(&entry.name)));
                }
                self.whiteout(parent.join(hidden))
            }
            Mark::Ignored => Ok(()),
            Mark::None => self.make(&parent, name, &entry, reader),
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<(), TreeError> {
        if entry.kind != Kind::Directory {
            return Err(TreeError::NotADirectory(shown(&entry.name)));
        }
        self.notes.root_stated = true;
        self.directories.state_root(&entry.attributes)
    }

    fn make<R: BufRead>(
        &mut self,
        parent: &TreePath,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), TreeError> {
        let parent = self.parent(parent, &entry.name)?;
        let place = Place { parent, name };
        if !self.notes.links.is_empty() {
            let path = self.directories.path_of(parent, name);
            self.notes.links.remove(&path);
        }
        match &entry.kind {
            Kind::Directory => self.directory(&place, entry),
            Kind::File { .. } => self.file(&place, entry, reader),
            Kind::Sparse { map } => self.sparse(&place, entry, map, reader),
            Kind::Symlink { target } => {
                self.fresh(&place, entry, "make symbolic link", |at| {
                    symlinkat(target.as_slice(), at, name)
                })?;
                Node::new(self.directories.fd(place.parent), name)
                    .attributes(&entry.attributes, false)
            }
            Kind::Hardlink { target } => self.hardlink(&place, entry, target),
            Kind::Character { major: 0, minor: 0 } => {
                Err(TreeError::FalseWhiteout(shown(&entry.name)))
            }
            Kind::Character { major, minor } => {
                self.device(&place, entry, FileType::CharacterDevice, (*major, *minor))
            }
            Kind::Block { major, minor } => {
                self.device(&place, entry, FileType::BlockDevice, (*major, *minor))
            }
            Kind::Fifo => self.device(&place, entry, FileType::Fifo, (0, 0)),
        }
    }

    fn directory(&mut self, place: &Place<'_>, entry: &Entry) -> Result<(), TreeError> {
        let opaque = match self.directories.make(place.parent, place.name) {
            Ok(()) => false,
            Err(Errno::EXIST) => match self.found(place, &entry.name)? {
                FileType::Directory => {
                    self.notes
                        .implied
                        .remove(&self.directories.path_of(place.parent, place.name));
                    false
                }
                _ => {
                    self.remove(place, &entry.name)?;
                    self.directories
                        .make(place.parent, place.name)
                        .map_err(failed("make directory", &entry.name))?;
                    true
                }
            },
            Err(error) => return Err(failed("make directory", &entry.name)(error)),
        };
        let slot = self
            .directories
            .enter(place.parent, place.name, &entry.name)?;
        let fd = self.directories.fd(slot);
        node::directory_attributes(fd, &entry.attributes, &entry.name)?;
        if opaque {
            set_opaque(fd, &entry.name)?;
        }
        self.directories.state_time(slot, entry.attributes.mtime);
        Ok(())
    }

    fn device(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), TreeError> {
        let device = rustix::fs::makedev(major, minor);
        self.fresh(place, entry, "make device", |at| {
            mknodat(at, place.name, kind, Mode::from_raw_mode(0), device)
        })?;
        Node::new(self.directories.fd(place.parent), place.name).attributes(&entry.attributes, true)
    }

    fn hardlink(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), TreeError> {
        let to = TreePath::parse(target).ok_or_else(|| TreeError::DotDot(shown(target)))?;
        let missing = || TreeError::LinkTarget {
            name: shown(&entry.name),
            target: shown(target),
        };
        let Some((to_parent, to_name)) = to.split_last() else {
            return Err(missing());
        };
        let there = match self.directories.find(&to_parent)? {
            Some(fd) => match statat(&fd, to_name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Some(fd),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(failed("link to", target)(error)),
            },
            None => None,
        };
        match there {
            Some(fd) => self.link(place, entry, &fd, to_name),
            None => {
                // The target may be in a layer below: the link is made when they are known.
                let at = self.directories.path_of(place.parent, place.name);
                self.clear(place, &entry.name)?;
                self.note(&to.clone(), |notes| {
                    notes.links.insert(at, to);
                })
            }
        }
    }

    fn link(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        from: &OwnedFd,
        name: &[u8],
    ) -> Result<(), TreeError> {
        let at = self.directories.fd(place.parent);
        if let (Ok(old), Ok(new)) = (
            statat(from, name, AtFlags::SYMLINK_NOFOLLOW),
            statat(at, place.name, AtFlags::SYMLINK_NOFOLLOW),
        ) && (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino)
        {
            return Ok(());
        }
        self.fresh(place, entry, "make hard link", |at| {
            linkat(from, name, at, place.name, AtFlags::empty())
        })
    }

    fn opaque(&mut self, directory: TreePath, name: &[u8]) -> Result<(), TreeError> {
        if directory.is_root() {
            self.notes.root_opaque = true;
            return Ok(());
        }
        match self.directories.existing(&directory, name)? {
            Some(slot) => set_opaque(self.directories.fd(slot), name),
            None => self.note(&directory.clone(), |notes| {
                notes.opaque.insert(directory);
            }),
        }
    }

    /// Hides a name of the layers below; what this layer itself puts there stays.
    fn whiteout(&mut self, hidden: TreePath) -> Result<(), TreeError> {
        self.note(&hidden.clone(), |notes| {
            notes.whiteouts.insert(hidden);
        })
    }

    /// Makes something new at a place, removing what the layer had put there before.
    fn fresh<T>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        step: &'static str,
        make: impl Fn(&OwnedFd) -> rustix::io::Result<T>,
    ) -> Result<T, TreeError> {
        match make(self.directories.touch(place.parent)) {
            Err(Errno::EXIST) => {
                self.remove(place, &entry.name)?;
                make(self.directories.touch(place.parent)).map_err(failed(step, &entry.name))
            }
            result => result.map_err(failed(step, &entry.name)),
        }
    }

    fn found(&self, place: &Place<'_>, name: &[u8]) -> Result<FileType, TreeError> {
        statat(
            self.directories.fd(place.parent),
            place.name,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map(|stat| FileType::from_raw_mode(stat.st_mode))
        .map_err(failed("look at", name))
    }

    fn clear(&mut self, place: &Place<'_>, name: &[u8]) -> Result<(), TreeError> {
        match statat(
            self.directories.fd(place.parent),
            place.name,
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(_) => self.remove(place, name),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("look at", name)(error)),
        }
    }

    /// Removes what an earlier entry made, with the notes about it.
    fn remove(&mut self, place: &Place<'_>, name: &[u8]) -> Result<(), TreeError> {
        let path = self.directories.path_of(place.parent, place.name);
        match unlinkat(
            self.directories.touch(place.parent),
            place.name,
            AtFlags::empty(),
        ) {
            Ok(()) => {}
            Err(Errno::ISDIR) => {
                self.directories.forget(&path)?;
                remove_tree(self.directories.touch(place.parent), place.name)
                    .map_err(failed("replace", name))?;
            }
            Err(error) => return Err(failed("replace", name)(error)),
        }
        self.notes.forget(&path);
        Ok(())
    }

    /// The directory an entry lies in, made if nothing in this layer made it before.
    fn parent(&mut self, path: &TreePath, name: &[u8]) -> Result<directories::Slot, TreeError> {
        let (slot, made) = self.directories.open(path, name)?;
        for path in made {
            self.note(&path.clone(), |notes| {
                notes.implied.insert(path);
            })?;
        }
        Ok(slot)
    }

    fn note(&mut self, path: &TreePath, add: impl FnOnce(&mut Notes)) -> Result<(), TreeError> {
        self.noted_bytes += path.as_bytes().len() + NOTE_OVERHEAD_BYTES;
        if self.noted_bytes > NOTES_MAX_BYTES {
            return Err(TreeError::TooManyNotes);
        }
        add(&mut self.notes);
        Ok(())
    }
}

/// A name in an open directory.
struct Place<'a> {
    parent: directories::Slot,
    name: &'a [u8],
}

/// Whether overlayfs takes this for a deleted file.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn make_whiteout(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    mknodat(at, name, FileType::CharacterDevice, WHITEOUT_MODE, 0)
}

pub(crate) fn set_opaque(fd: &OwnedFd, name: &[u8]) -> Result<(), TreeError> {
    fsetxattr(fd, OPAQUE, b"y", XattrFlags::empty()).map_err(failed("mark as opaque", name))
}

/// Attributes of a directory that nothing states: as `mkdir -p` would make it for root.
pub(crate) fn default_directory() -> Attributes {
    Attributes {
        mode: 0o755,
        ..Attributes::default()
    }
}
