//! Which block is what: groups of 128 MiB, each with its own tables at its start.

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4096;
/// The least that is worth a file system: 16 MiB.
pub(super) const BYTES_MIN: u64 = 16 << 20;
/// Larger disks are used up to here, 4 TiB: block numbers fit 32 bits, and the host
/// cannot make the kernel keep tables for a disk that it only claims to have.
pub(in super::super) const BYTES_MAX: u64 = 1 << 42;
const BLOCKS_MAX: u32 = 1 << 30;
const _: () = assert!(BYTES_MAX == BLOCKS_MAX as u64 * BLOCK_BYTES as u64);
/// One bit a block in a bitmap of one block.
pub(super) const BLOCKS_PER_GROUP: u32 = 32_768;
/// An inode for 32 KiB: the tables take an eighth of the disk, and none of the node before use.
const BLOCKS_PER_INODE: u32 = 8;
/// An inode has a block of its own. Where inodes share one, the kernel reads it from the disk
/// when two of them are made at the same time, although neither has been written; below is a
/// disk that answers what was never written with an error.
pub(super) const INODE_BYTES: usize = BLOCK_BYTES;
const INODES_PER_BLOCK: u32 = 1;
/// A bitmap has whole bytes.
const INODES_PER_BYTE: u32 = 8;
const DESCRIPTORS_PER_BLOCK: u32 = 64;
/// A last group with less room behind its tables is left out.
const ROOM_MIN: u32 = 64;

/// A group's descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 64;

const _: () = assert!(BLOCK_BYTES == INODE_BYTES * INODES_PER_BLOCK as usize);
const _: () = assert!(BLOCK_BYTES == DESCRIPTOR_BYTES * DESCRIPTORS_PER_BLOCK as usize);

/// A run of blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) first: u32,
    pub(super) blocks: u32,
}

/// The sizes that all else follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) blocks: u32,
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
}

impl Geometry {
    /// The geometry for so many bytes; `None` if they are too few.
    pub(super) fn of(bytes: u64) -> Option<Self> {
        if bytes < BYTES_MIN {
            return None;
        }
        let whole = bytes / BLOCK_BYTES as u64;
        let blocks = u32::try_from(whole).unwrap_or(u32::MAX).min(BLOCKS_MAX);
        let inodes = blocks.min(BLOCKS_PER_GROUP) / BLOCKS_PER_INODE;
        let mut geometry = Self {
            blocks,
            groups: blocks.div_ceil(BLOCKS_PER_GROUP),
            inodes_per_group: inodes / INODES_PER_BYTE * INODES_PER_BYTE,
        };
        let last = geometry.groups - 1;
        if last > 0 && geometry.group_blocks(last) < 2 + geometry.table_blocks() + ROOM_MIN {
            geometry.groups = last;
            geometry.blocks = last * BLOCKS_PER_GROUP;
        }
        Some(geometry)
    }

    pub(super) fn table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    pub(super) fn inode_bitmap_bytes(&self) -> usize {
        usize::try_from(self.inodes_per_group / 8).unwrap_or(usize::MAX)
    }

    pub(super) fn first_block(&self, group: u32) -> u32 {
        group * BLOCKS_PER_GROUP
    }

    pub(super) fn group_blocks(&self, group: u32) -> u32 {
        (self.blocks - self.first_block(group)).min(BLOCKS_PER_GROUP)
    }

    /// Behind the superblock and the group descriptors, which only group 0 has.
    pub(super) fn block_bitmap(&self, group: u32) -> u32 {
        let own = if group == 0 {
            1 + self.groups.div_ceil(DESCRIPTORS_PER_BLOCK)
        } else {
            0
        };
        self.first_block(group) + own
    }

    pub(super) fn inode_bitmap(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 1
    }

    pub(super) fn inode_table(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 2
    }

    /// The first block behind a group's tables.
    pub(super) fn first_free(&self, group: u32) -> u32 {
        self.inode_table(group) + self.table_blocks()
    }

    /// Blocks of the groups' tables and what lies before them.
    pub(super) fn overhead(&self) -> u32 {
        let own = |group| self.first_free(group) - self.first_block(group);
        // All groups but the first are alike.
        own(0) + (self.groups - 1) * (2 + self.table_blocks())
    }
}
