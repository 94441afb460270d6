//! Writes what is in a file.

use std::{io::BufRead, os::fd::OwnedFd};

use rustix::fs::{SeekFrom, ftruncate, seek};

use super::{Place, Tree, TreeError, failed, node};
use crate::tar::{Entry, Map, Reader};

impl Tree {
    pub(super) fn file<R: BufRead>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), TreeError> {
        let file = self.create(place, entry)?;
        self.write(&file, entry, u64::MAX, reader)?;
        node::file_attributes(&file, &entry.attributes, &entry.name)
    }

    /// Each part that the archive holds goes to its place; what is between stays a hole.
    pub(super) fn sparse<R: BufRead>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        map: &Map,
        reader: &mut Reader<R>,
    ) -> Result<(), TreeError> {
        let file = self.create(place, entry)?;
        for part in map.parts() {
            seek(&file, SeekFrom::Start(part.offset)).map_err(failed("write", &entry.name))?;
            self.write(&file, entry, part.length, reader)?;
        }
        ftruncate(&file, map.size()).map_err(failed("set the size of", &entry.name))?;
        node::file_attributes(&file, &entry.attributes, &entry.name)
    }

    fn create(&mut self, place: &Place<'_>, entry: &Entry) -> Result<OwnedFd, TreeError> {
        self.fresh(place, entry, "create", |at| {
            node::create_file(at, place.name)
        })
    }

    /// Writes up to `length` bytes of the entry's content.
    fn write<R: BufRead>(
        &self,
        file: &OwnedFd,
        entry: &Entry,
        length: u64,
        reader: &mut Reader<R>,
    ) -> Result<(), TreeError> {
        let mut left = length;
        while left > 0 {
            let content = reader.content().map_err(|source| TreeError::Tar {
                entries: self.entries,
                source,
            })?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX);
            let content = content.get(..wanted).unwrap_or(content);
            if content.is_empty() {
                break;
            }
            let written = rustix::io::retry_on_intr(|| rustix::io::write(file, content))
                .map_err(failed("write", &entry.name))?;
            reader.consume(written);
            left -= written as u64;
        }
        Ok(())
    }
}
