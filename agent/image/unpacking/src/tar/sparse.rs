//! Sparse files: which parts of a file an archive holds; between them are holes.
//!
//! Four notations are in use, all of GNU tar (its manual, "Storing Sparse Files"): type `S`
//! with the map in the header and in blocks after it, and PAX records of version 0.0 (a pair
//! of records for each part), 0.1 (one record with all) and 1.0 (the map before the data).
//!
//! Hostile here: the map. Parts that overlap, go back or lie outside of the file, and maps
//! that do not account for each byte that is stored are refused; a hole takes no room on the
//! disk, however long it claims to be.

use super::{
    TarError,
    header::{Block, number},
    pax::decimal,
};

/// More parts than any builder writes; a map is held in memory.
const PARTS_MAX: usize = 64 * 1024;

/// Offset of the map, of the mark that more follows and of the file's size in a header of type `S`.
const OLD_MAP: (usize, usize) = (386, 4);
const OLD_MORE: usize = 482;
const OLD_SIZE: usize = 483;
/// The same in the blocks that follow it.
const MORE_MAP: (usize, usize) = (0, 21);
const MORE_MORE: usize = 504;

/// Bytes of a number in either.
const NUMBER: usize = 12;

/// A part that the archive holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The parts of a file, in order, without overlap, within its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    parts: Vec<Part>,
    size: u64,
}

impl Map {
    /// `stored` is how many bytes the archive holds.
    pub(super) fn new(parts: Vec<Part>, size: u64, stored: u64) -> Result<Self, TarError> {
        let mut end: u64 = 0;
        let mut total: u64 = 0;
        for part in &parts {
            if part.offset < end {
                return Err(TarError::Sparse("its parts overlap or are out of order"));
            }
            end = part.offset.checked_add(part.length).ok_or(OUTSIDE)?;
            total = total.checked_add(part.length).ok_or(OUTSIDE)?;
        }
        if end > size || i64::try_from(size).is_err() {
            return Err(OUTSIDE);
        }
        if total != stored {
            return Err(TarError::Sparse(
                "its parts are not as long as what is stored",
            ));
        }
        Ok(Self { parts, size })
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The whole file's, holes included.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

const OUTSIDE: TarError = TarError::Sparse("a part lies outside of the file");
const MALFORMED: TarError = TarError::Sparse("its map is malformed");
const TOO_MANY: TarError = TarError::Sparse("it has too many parts");

/// What PAX records say of a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) name: Option<Vec<u8>>,
    major: u64,
    minor: u64,
    size: Option<u64>,
    count: Option<u64>,
    /// The offset whose length is still to come (0.0).
    offset: Option<u64>,
    parts: Vec<Part>,
}

impl Records {
    /// `key` is what follows `GNU.sparse.`.
    pub(super) fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"major" => self.major = natural(value)?,
            b"minor" => self.minor = natural(value)?,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(natural(value)?),
            b"numblocks" => self.count = Some(natural(value)?),
            b"offset" if self.offset.is_none() => self.offset = Some(natural(value)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(MALFORMED)?;
                self.add(offset, natural(value)?)?;
            }
            b"map" => self.add_all(value)?,
            _ => return Err(TarError::Sparse("it has a record of an unknown kind")),
        }
        Ok(())
    }

    fn add(&mut self, offset: u64, length: u64) -> Result<(), TarError> {
        if self.parts.len() >= PARTS_MAX {
            return Err(TOO_MANY);
        }
        self.parts.push(Part { offset, length });
        Ok(())
    }

    fn add_all(&mut self, map: &[u8]) -> Result<(), TarError> {
        self.parts.clear();
        let mut numbers = map.split(|byte| *byte == b',');
        while let Some(offset) = numbers.next() {
            let length = numbers.next().ok_or(MALFORMED)?;
            self.add(natural(offset)?, natural(length)?)?;
        }
        Ok(())
    }

    /// Whether the map stands before the data.
    pub(super) fn has_map_in_data(&self) -> Result<bool, TarError> {
        match (self.major, self.minor) {
            (0, 0 | 1) => Ok(false),
            (1, 0) => Ok(true),
            _ => Err(TarError::Sparse("its map has an unknown version")),
        }
    }

    /// The map of versions 0.0 and 0.1.
    pub(super) fn map(self, stored: u64) -> Result<Map, TarError> {
        let counted = self
            .count
            .is_none_or(|count| count == self.parts.len() as u64);
        if !counted || self.offset.is_some() {
            return Err(MALFORMED);
        }
        Map::new(self.parts, self.size.ok_or(MALFORMED)?, stored)
    }

    /// The map of version 1.0.
    pub(super) fn map_with(&self, parts: Vec<Part>, stored: u64) -> Result<Map, TarError> {
        Map::new(parts, self.size.ok_or(MALFORMED)?, stored)
    }
}

/// The map that stands before the data, as its blocks come.
#[derive(Default)]
pub(super) struct MapText {
    text: Vec<u8>,
    lines: usize,
    /// Lines in all, once the first is there.
    wanted: Option<usize>,
}

impl MapText {
    pub(super) fn is_complete(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.lines >= wanted)
    }

    pub(super) fn add(&mut self, block: &Block) -> Result<(), TarError> {
        self.lines += block.iter().filter(|byte| **byte == b'\n').count();
        self.text.extend_from_slice(block);
        if self.wanted.is_none() {
            let first = self.text.split(|byte| *byte == b'\n').next();
            let count = match first {
                Some(first) if self.lines > 0 => natural(first)?,
                _ => return Err(MALFORMED),
            };
            let count = usize::try_from(count).map_err(|_| TOO_MANY)?;
            if count > PARTS_MAX {
                return Err(TOO_MANY);
            }
            self.wanted = Some(1 + 2 * count);
        }
        // A number of at most 19 digits a line, and nothing else.
        if self.text.len() > 512 + 20 * self.wanted.unwrap_or(1) {
            return Err(MALFORMED);
        }
        Ok(())
    }

    pub(super) fn parts(&self) -> Result<Vec<Part>, TarError> {
        let lines = self.text.split(|byte| *byte == b'\n');
        let mut numbers = lines.take(self.wanted.unwrap_or(1)).skip(1);
        let mut parts = Vec::new();
        while let (Some(offset), Some(length)) = (numbers.next(), numbers.next()) {
            parts.push(Part {
                offset: natural(offset)?,
                length: natural(length)?,
            });
        }
        Ok(parts)
    }
}

/// The map of a header of type `S`, with the blocks after it.
pub(super) struct OldMap {
    parts: Vec<Part>,
    size: u64,
    pub(super) more_follows: bool,
}

impl OldMap {
    pub(super) fn of_header(block: &Block) -> Result<Self, TarError> {
        let mut map = Self {
            parts: Vec::new(),
            size: field(block, OLD_SIZE)?,
            more_follows: flag(block, OLD_MORE),
        };
        map.read(block, OLD_MAP)?;
        Ok(map)
    }

    pub(super) fn add(&mut self, block: &Block) -> Result<(), TarError> {
        self.more_follows = flag(block, MORE_MORE);
        self.read(block, MORE_MAP)
    }

    fn read(&mut self, block: &Block, (offset, count): (usize, usize)) -> Result<(), TarError> {
        for at in (offset..).step_by(2 * NUMBER).take(count) {
            if block.get(at + NUMBER).is_none_or(|byte| *byte == 0) {
                break;
            }
            if self.parts.len() >= PARTS_MAX {
                return Err(TOO_MANY);
            }
            self.parts.push(Part {
                offset: field(block, at)?,
                length: field(block, at + NUMBER)?,
            });
        }
        Ok(())
    }

    pub(super) fn map(self, stored: u64) -> Result<Map, TarError> {
        Map::new(self.parts, self.size, stored)
    }
}

fn flag(block: &Block, at: usize) -> bool {
    block.get(at).is_some_and(|byte| *byte != 0)
}

fn field(block: &Block, at: usize) -> Result<u64, TarError> {
    let field = block.get(at..at + NUMBER).ok_or(MALFORMED)?;
    let value = number("place in its sparse map", field)?;
    u64::try_from(value).map_err(|_| MALFORMED)
}

fn natural(text: &[u8]) -> Result<u64, TarError> {
    let value = decimal("place in its sparse map", text)?;
    u64::try_from(value).map_err(|_| MALFORMED)
}
