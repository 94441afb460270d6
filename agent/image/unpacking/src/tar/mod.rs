//! Reads tar archives as image builders write them.
//!
//! The `tar` crate is not used: it narrows numbers that PAX records give, follows
//! its own idea of sparse maps, and allocates what a header asks for; the rules
//! for images want each number range-checked, each size limited, and file content
//! handed on as slices of the decompressor's own buffers. What is left of the
//! format then is small:
//!
//! * [`header`]: one 512-byte block, old, ustar or GNU;
//! * [`pax`]: extended headers (POSIX.1-2024 `pax`), with star's xattrs;
//! * [`sparse`]: which parts of a sparse file the archive holds;
//! * this module: the sequence of blocks, extended headers folded into the entry
//!   that follows.
//!
//! The bytes are the registry's, not yet proven by any digest. Anything
//! unclear is an error, never a guess: multi-volume archives and other than comments are refused by name.

mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead};

use header::{Block, Header};
use pax::Records;
pub(crate) use pax::Xattrs;
pub(crate) use sparse::Map;
use sparse::{MapText, OldMap};

/// The longest name, link target or extended header that is read. Linux takes
/// paths of at most 4096 bytes, but extended headers carry xattrs of 64 KiB.
const EXTENSION_MAX: u64 = 1024 * 1024;

/// Linux `PATH_MAX`, less the terminator.
const PATH_MAX: usize = 4095;

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        size: u64,
    },
    /// Its content is the map's parts, one after another.
    Sparse {
        map: Map,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    Hardlink {
        target: Vec<u8>,
    },
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Seconds since 1970, possibly negative, and nanoseconds upward from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// Owner, group and permission bits (with set-id and sticky bits) and so on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Xattrs,
}

/// One entry, its extended headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As written, without normalisation.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed; its error says why.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream ended inside a header or a file.
    #[error("the archive is cut off")]
    Truncated,
    /// A header block whose sum does not match: not a tar archive, or damaged.
    #[error("an entry's header is damaged: its checksum does not match")]
    Checksum,
    /// A number with other characters than its notation has.
    #[error("an entry's {0} is not a number")]
    NotANumber(&'static str),
    /// A number outside what Linux can represent.
    #[error("an entry's {0} is out of range")]
    Range(&'static str),
    /// An extended header or long name beyond the limit.
    #[error("an entry's {what} takes {size} bytes; at most {EXTENSION_MAX} are supported")]
    ExtensionSize {
        /// What is too long.
        what: &'static str,
        /// How long it claims to be.
        size: u64,
    },
    /// An extended header that is not `length key=value` lines.
    #[error("a PAX record is malformed")]
    PaxRecord,
    /// A global record that would change all later entries.
    #[error("the global PAX record `{0}` is not supported")]
    PaxGlobal(String),
    /// A name or link target with a NUL byte, an empty one, or one beyond `PATH_MAX`.
    #[error("an entry's {0} is empty, longer than {PATH_MAX} bytes, or holds a NUL")]
    Name(&'static str),
    /// A sparse file whose map cannot be right.
    #[error("an entry is a sparse file, and {0}")]
    Sparse(&'static str),
    /// A type of entry that no image has.
    #[error("an entry has the unknown type `{}`", char::from(*.0).escape_default())]
    Type(u8),
    /// A long name or extended header that no entry follows.
    #[error("the archive ends after an extended header")]
    Dangling,
}

/// Iterates over the entries of the archive in a stream.
pub(crate) struct Reader<R> {
    input: R,
    /// Content of the current entry that was not read yet.
    remaining: u64,
    /// What pads that content to a multiple of 512.
    padding: u64,
    finished: bool,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            remaining: 0,
            padding: 0,
            finished: false,
        }
    }

    /// The stream, after the last entry: what follows the archive's end is still in it.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// Goes to the next entry, skipping what is left of the current one's content.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        while let Some(header) = self.next_header()? {
            match header.kind {
                b'x' | b'X' => {
                    let records = self.extension("PAX header", header.size)?;
                    extension.records = Records::parse(&records)?;
                }
                b'g' => Records::check_global(&self.extension("PAX header", header.size)?)?,
                b'L' => extension.name = Some(self.long_name("name", header.size)?),
                b'K' => extension.link = Some(self.long_name("link target", header.size)?),
                _ => return self.entry(header, extension).map(Some),
            }
        }
        if extension.is_empty() {
            Ok(None)
        } else {
            Err(TarError::Dangling)
        }
    }

    /// The next bytes of the current file; empty at its end.
    pub(crate) fn content(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf().map_err(TarError::Read)?;
        if available.is_empty() {
            return Err(TarError::Truncated);
        }
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        Ok(available.get(..wanted).unwrap_or(available))
    }

    /// Marks bytes that [`Self::content`] returned as used.
    pub(crate) fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.remaining = self.remaining.saturating_sub(amount as u64);
    }

    fn entry(&mut self, header: Header, extension: Extension) -> Result<Entry, TarError> {
        let Extension {
            mut records,
            name,
            link,
        } = extension;
        let sparse = records.sparse.take();
        let real_name = sparse.as_ref().and_then(|sparse| sparse.name.clone());
        let name = real_name.or(records.path).or(name);
        let name = checked("name", name.unwrap_or_else(|| header.name.clone()))?;
        let target = records.link.or(link).unwrap_or_else(|| header.link.clone());
        let size = records.size.unwrap_or(header.size);
        let kind = match header.kind {
            b'0' | 0 | b'7' if name.last() == Some(&b'/') => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File { size },
            b'1' => Kind::Hardlink {
                target: checked("link target", target)?,
            },
            b'2' => Kind::Symlink {
                target: checked("link target", target)?,
            },
            b'3' => Kind::Character {
                major: header.major()?,
                minor: header.minor()?,
            },
            b'4' => Kind::Block {
                major: header.major()?,
                minor: header.minor()?,
            },
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => Kind::Sparse {
                map: self.old_map(&header, size)?,
            },
            other => return Err(TarError::Type(other)),
        };
        // Only files have content; other types carry a size in some archives but no bytes.
        if matches!(kind, Kind::File { .. } | Kind::Sparse { .. }) {
            self.set_content(size);
        }
        let kind = match (sparse, kind) {
            (None, kind) => kind,
            (Some(sparse), Kind::File { .. }) => Kind::Sparse {
                map: self.map(sparse)?,
            },
            (Some(_), _) => return Err(TarError::Sparse("its type is no file's")),
        };
        let attributes = Attributes {
            mode: header.mode,
            uid: records.uid.map_or_else(|| header.uid(), Ok)?,
            gid: records.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: records.mtime.unwrap_or(Time {
                seconds: header.mtime,
                nanoseconds: 0,
            }),
            xattrs: records.xattrs,
        };
        Ok(Entry {
            name,
            kind,
            attributes,
        })
    }

    /// The map of a header of type `S`; what is stored comes after its last block.
    fn old_map(&mut self, header: &Header, stored: u64) -> Result<Map, TarError> {
        let mut map = OldMap::of_header(&header.block)?;
        while map.more_follows {
            map.add(&self.block()?)?;
        }
        map.map(stored)
    }

    /// The map that PAX records give, or announce at the beginning of the content.
    fn map(&mut self, records: sparse::Records) -> Result<Map, TarError> {
        if !records.has_map_in_data()? {
            return records.map(self.remaining);
        }
        let mut text = MapText::default();
        while !text.is_complete() {
            let left = self.remaining.checked_sub(512);
            self.remaining = left.ok_or(TarError::Sparse("its map is cut off"))?;
            text.add(&self.block()?)?;
        }
        records.map_with(text.parts()?, self.remaining)
    }

    fn block(&mut self) -> Result<Block, TarError> {
        let mut block: Block = [0; 512];
        if self.fill(&mut block)? {
            Ok(block)
        } else {
            Err(TarError::Truncated)
        }
    }

    fn set_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (512 - size % 512) % 512;
    }

    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        self.skip()?;
        if self.finished {
            return Ok(None);
        }
        let mut block: Block = [0; 512];
        if !self.fill(&mut block)? {
            self.finished = true;
            return Ok(None);
        }
        if block.iter().all(|byte| *byte == 0) {
            // Two zero blocks end an archive; one at the very end of the stream does, too.
            if self.fill(&mut block)? && block.iter().any(|byte| *byte != 0) {
                return Err(TarError::Checksum);
            }
            self.finished = true;
            return Ok(None);
        }
        Header::parse(&block).map(Some)
    }

    /// Fills the block; `false` if the stream is at its end.
    fn fill(&mut self, block: &mut Block) -> Result<bool, TarError> {
        let mut rest: &mut [u8] = block;
        let whole = rest.len();
        while !rest.is_empty() {
            let available = self.input.fill_buf().map_err(TarError::Read)?;
            let amount = available.len().min(rest.len());
            if amount == 0 {
                return if rest.len() == whole {
                    Ok(false)
                } else {
                    Err(TarError::Truncated)
                };
            }
            let (head, tail) = rest.split_at_mut(amount);
            head.copy_from_slice(&available[..amount]);
            rest = tail;
            self.input.consume(amount);
        }
        Ok(true)
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let (content, padding) = (self.remaining, self.padding);
        (self.remaining, self.padding) = (0, 0);
        if self.discard(content)? < content {
            return Err(TarError::Truncated);
        }
        // Some builders end an archive after the last byte of content.
        self.finished |= self.discard(padding)? < padding;
        Ok(())
    }

    /// Skips bytes as long as there are any; returns how many there were.
    fn discard(&mut self, wanted: u64) -> Result<u64, TarError> {
        let mut left = wanted;
        while left > 0 {
            let available = self.input.fill_buf().map_err(TarError::Read)?.len();
            if available == 0 {
                break;
            }
            let amount = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(amount);
            left -= amount as u64;
        }
        Ok(wanted - left)
    }

    fn extension(&mut self, what: &'static str, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_MAX {
            return Err(TarError::ExtensionSize { what, size });
        }
        self.set_content(size);
        let mut bytes = Vec::new();
        loop {
            let content = self.content()?;
            if content.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(content);
            let amount = content.len();
            self.consume(amount);
        }
    }

    fn long_name(&mut self, what: &'static str, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.extension(what, size)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

#[derive(Default)]
struct Extension {
    records: Records,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extension {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records == Records::default()
    }
}

fn checked(what: &'static str, name: Vec<u8>) -> Result<Vec<u8>, TarError> {
    let fits = !name.is_empty() && name.len() <= PATH_MAX && !name.contains(&0);
    if fits {
        Ok(name)
    } else {
        Err(TarError::Name(what))
    }
}

#[cfg(test)]
mod tests;
