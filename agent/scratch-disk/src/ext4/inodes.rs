//! The files that every ext4 file system has: the root, `lost+found`, and the quota
//! file (kernel documentation, `ext4/inodes.rst`, `directory.rst`, `ifork.rst`).

use super::{
    bytes::{put, put_split, put16, put16_of, put32},
    crc32c::crc32c,
    geometry::{BLOCK_BYTES, Extent, INODE_BYTES},
};

/// Inodes up to 10 are the file system's own; see [`InodeOwner`] for the next two.
pub(super) const FIRST_INODE: u32 = 11;
pub(super) const FIRST_FREE_INODE: u32 = 13;

const DIRECTORY: u16 = 0o040_000;
const REGULAR: u16 = 0o100_000;
const EXTENTS_FLAG: u32 = 0x0008_0000;
const IMMUTABLE_FLAG: u32 = 0x10;
const NO_ATIME_FLAG: u32 = 0x80;
const EXTENT_MAGIC: u16 = 0xf30a;
/// What an inode holds beyond the first 128 bytes, up to the project's number.
pub(super) const EXTRA_BYTES: u16 = 32;
const SECTOR_BYTES: usize = 512;

/// The number of an inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct InodeOwner(u32);

impl InodeOwner {
    pub(super) const BAD_BLOCKS: Self = Self(1);
    pub(super) const ROOT: Self = Self(2);
    pub(super) const LOST_AND_FOUND: Self = Self(FIRST_INODE);
    pub(super) const PROJECT_QUOTA: Self = Self(FIRST_INODE + 1);

    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// Where checksums of what belongs to it start; its generation is 0.
    fn seed(self, seed: u32) -> u32 {
        crc32c(crc32c(seed, &self.0.to_le_bytes()), &[0; 4])
    }
}

/// An inode without its times and its checksum.
pub(super) type Inode = [u8; INODE_BYTES];

pub(super) fn empty() -> Inode {
    [0; INODE_BYTES]
}

fn file(mode: u16, links: u16, flags: u32, extent: Extent, bytes: u32) -> Inode {
    let mut inode = empty();
    put16(&mut inode, 0x00, mode);
    put32(&mut inode, 0x04, bytes);
    put16(&mut inode, 0x1a, links);
    let sectors = extent.blocks * u32::try_from(BLOCK_BYTES / SECTOR_BYTES).unwrap_or(8);
    put32(&mut inode, 0x1c, sectors);
    put32(&mut inode, 0x20, EXTENTS_FLAG | flags);
    // A header with room for four extents, then the one extent.
    put16(&mut inode, 0x28, EXTENT_MAGIC);
    put16(&mut inode, 0x2a, 1);
    put16(&mut inode, 0x2c, 4);
    put16_of(&mut inode, 0x38, extent.blocks);
    put32(&mut inode, 0x3c, extent.first);
    inode
}

/// The inode of the quota file, which nobody but the kernel writes.
pub(super) fn quota_inode(extent: Extent) -> Inode {
    let flags = IMMUTABLE_FLAG | NO_ATIME_FLAG;
    file(REGULAR | 0o600, 1, flags, extent, super::quota::BYTES)
}

/// Fills in what comes last: times and checksum.
pub(super) fn finish(inode: &mut Inode, owner: InodeOwner, made: u32, seed: u32) {
    for time in [0x08, 0x0c, 0x10, 0x90] {
        put32(inode, time, made);
    }
    put16(inode, 0x80, EXTRA_BYTES);
    let sum = crc32c(owner.seed(seed), inode);
    put_split(inode, (0x7c, 0x82), sum);
}

/// Puts an inode into the start of the first inode table.
pub(super) fn place(table: &mut [u8], owner: InodeOwner, inode: &Inode) {
    let index = usize::try_from(owner.0 - 1).unwrap_or(usize::MAX);
    put(table, index * INODE_BYTES, inode);
}

/// A directory of one block.
pub(super) struct Directory {
    owner: InodeOwner,
    parent: InodeOwner,
    child: Option<(&'static str, InodeOwner)>,
    mode: u16,
    extent: Extent,
}

const TYPE_DIRECTORY: u8 = 2;
/// An entry for no file, whose type is this, holds the block's checksum.
const TYPE_CHECKSUM: u8 = 0xde;
const TAIL_BYTES: usize = 12;

impl Directory {
    pub(super) fn root(extent: Extent) -> Self {
        Self {
            owner: InodeOwner::ROOT,
            parent: InodeOwner::ROOT,
            child: Some(("lost+found", InodeOwner::LOST_AND_FOUND)),
            mode: 0o755,
            extent,
        }
    }

    pub(super) fn lost_and_found(extent: Extent) -> Self {
        Self {
            owner: InodeOwner::LOST_AND_FOUND,
            parent: InodeOwner::ROOT,
            child: None,
            mode: 0o700,
            extent,
        }
    }

    pub(super) fn inode(&self) -> Inode {
        // Its own entry, its name in its parent, and `..` of its child.
        let links = 2 + u16::from(self.child.is_some());
        let bytes = u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX);
        file(DIRECTORY | self.mode, links, 0, self.extent, bytes)
    }

    pub(super) fn block(&self, seed: u32) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        let end = BLOCK_BYTES - TAIL_BYTES;
        let entries = [
            Some((".", self.owner)),
            Some(("..", self.parent)),
            self.child,
        ];
        let mut at = 0;
        let mut entries = entries.into_iter().flatten().peekable();
        while let Some((name, inode)) = entries.next() {
            let own = (8 + name.len()).next_multiple_of(4);
            // The last entry reaches to the end.
            let length = if entries.peek().is_some() {
                own
            } else {
                end - at
            };
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            put32(&mut block, at, inode.0);
            put16_of(&mut block, at + 4, length);
            let name_length = u8::try_from(name.len()).unwrap_or(u8::MAX);
            put(&mut block, at + 6, &[name_length, TYPE_DIRECTORY]);
            put(&mut block, at + 8, name.as_bytes());
            at += own;
        }
        let sum = crc32c(self.owner.seed(seed), block.get(..end).unwrap_or_default());
        put16_of(&mut block, end + 4, 12);
        put(&mut block, end + 7, &[TYPE_CHECKSUM]);
        put32(&mut block, end + 8, sum);
        block
    }
}
