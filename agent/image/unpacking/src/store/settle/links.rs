//! Makes a layer's hard links to files of the layers below it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    ops::Range,
    os::fd::OwnedFd,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, fstat, ftruncate, linkat, openat, seek},
    io::Errno,
};

use super::{
    SettleError, Settling,
    attributes::{copy_attributes, unchanged},
};
use crate::tree::{TreePath, shown, tree_failed};

/// So much of a file is copied before the time is looked at again.
const PIECE_BYTES: u64 = 64 * 1024 * 1024;

impl Settling<'_> {
    /// Each file below that is linked to is copied into the layer once, to its own name, and
    /// all links lead to the copy.
    pub(super) fn links(&mut self) -> Result<(), SettleError> {
        let links = std::mem::take(&mut self.notes.links);
        let mut copies = BTreeMap::new();
        for link in links.keys() {
            self.deadline.check()?;
            let target = last_target(&links, link).ok_or_else(|| missing(link, link))?;
            self.link(link, target, &mut copies)?;
        }
        Ok(())
    }

    /// `copies` has, for each file below, a name of its copy in the layer.
    fn link(
        &mut self,
        link: &TreePath,
        target: &TreePath,
        copies: &mut BTreeMap<TreePath, TreePath>,
    ) -> Result<(), SettleError> {
        let place = self.canonical(target)?;
        if let Some(copy) = copies.get(&place) {
            return self.same_file(copy, link);
        }
        let below = self.file_below(&place)?;
        let below = below.ok_or_else(|| missing(link, target))?;
        match self.own_entry(&place)? {
            None => {
                let (parent, _) = place.split_last().unwrap_or_default();
                self.ensure(&parent)?;
                self.directories()?;
                self.copy(&below, &place)?;
                self.same_file(&place, link)?;
                copies.insert(place.clone(), place);
            }
            // The layer puts another file in its place; the links have the old one.
            Some((_, stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                self.copy(&below, link)?;
                copies.insert(place, link.clone());
            }
            Some(_) => return Err(missing(link, target)),
        }
        Ok(())
    }

    fn file_below(&self, place: &TreePath) -> Result<Option<OwnedFd>, SettleError> {
        let Some((parent, stat)) = self.look(place)? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = openat(&parent, place.name(), flags, Mode::empty());
        Ok(Some(below.map_err(tree_failed("open", place.as_bytes()))?))
    }

    fn same_file(&self, copy: &TreePath, link: &TreePath) -> Result<(), SettleError> {
        let (from, to) = (self.parent_of(copy)?, self.parent_of(link)?);
        unchanged(&to, || {
            linkat(&from, copy.name(), &to, link.name(), AtFlags::empty())
        })
        .map_err(tree_failed("make hard link", link.as_bytes()))?;
        Ok(())
    }

    fn copy(&self, below: &OwnedFd, to: &TreePath) -> Result<(), SettleError> {
        let at = self.parent_of(to)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = unchanged(&at, || {
            openat(&at, to.name(), flags, Mode::RUSR | Mode::WUSR)
        })
        .map_err(tree_failed("create", to.as_bytes()))?;
        self.copy_content(below, &copy, to)?;
        Ok(copy_attributes(below, &copy, to)?)
    }

    /// Copies a file with its holes: a sparse one may claim more than any disk holds.
    fn copy_content(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &TreePath,
    ) -> Result<(), SettleError> {
        let failed = |error: io::Error| {
            tree_failed("copy", name.as_bytes())(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        let mut at = 0;
        while let Some(data) = next_data(from, at).map_err(failed)? {
            self.deadline.check()?;
            copy_range(from, to, &data).map_err(failed)?;
            at = data.end;
        }
        let length = fstat(from).map_err(|error| failed(error.into()))?.st_size;
        ftruncate(to, u64::try_from(length).unwrap_or_default())
            .map_err(|error| failed(error.into()))?;
        Ok(())
    }

    pub(super) fn parent_of(&self, path: &TreePath) -> Result<OwnedFd, SettleError> {
        let (parent, _) = path.split_last().unwrap_or_default();
        Ok(self.own(&parent)?)
    }
}

/// Where a chain of links ends; `None` if it leads in a circle.
fn last_target<'a>(
    links: &'a BTreeMap<TreePath, TreePath>,
    link: &TreePath,
) -> Option<&'a TreePath> {
    let mut target = links.get(link)?;
    for _ in 0..links.len() {
        match links.get(target) {
            Some(next) => target = next,
            None => return Some(target),
        }
    }
    None
}

/// The next piece of a file that is no hole, from `at` on.
fn next_data(file: &OwnedFd, at: u64) -> io::Result<Option<Range<u64>>> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?;
    Ok(Some(start..end.min(start.saturating_add(PIECE_BYTES))))
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, range: &Range<u64>) -> io::Result<()> {
    seek(from, SeekFrom::Start(range.start))?;
    seek(to, SeekFrom::Start(range.start))?;
    let (source, mut copy) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    io::copy(&mut source.take(range.end - range.start), &mut copy)?;
    Ok(())
}

fn missing(link: &TreePath, target: &TreePath) -> SettleError {
    SettleError::LinkTarget {
        link: shown(link.as_bytes()),
        target: shown(target.as_bytes()),
    }
}
