//! Makes an empty ext4 file system, as a pure function from a size to a few writes.
//!
//! The guest has no `mkfs`, and none would fit: the file system lives as long as the
//! VM, is made while the pod waits, and lies on a sparse file of the host's. So it has
//! no journal, no copies of its superblock, and group descriptors that say "nothing
//! here yet" instead of zeroed tables; a disk of 10 GiB takes about 110 KiB of writes. It has
//! checksums of all its metadata: who garbles the ciphertext gets an error from the
//! kernel, not a directory of his making. And it counts by project, so that a volume
//! can have a limit.
//!
//! Layouts are those of the kernel's `Documentation/filesystems/ext4/` (6.12), tried
//! with `e2fsck`. Numbers are little-endian.

mod bytes;
mod crc32c;
mod geometry;
mod identity;
mod inodes;
mod quota;
mod superblock;

use bytes::put32;
use crc32c::crc32c;
pub(super) use geometry::BYTES_MAX;
use geometry::{BLOCK_BYTES, DESCRIPTOR_BYTES, Extent, Geometry};
pub(super) use identity::Identity;
use inodes::{Directory, FIRST_FREE_INODE, InodeOwner};
use thiserror::Error;

/// Inodes that the start of the table holds.
const USED_INODES: usize = FIRST_FREE_INODE as usize - 1;

/// The disk cannot hold a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "it has {bytes} bytes, and a file system needs {} at least",
    geometry::BYTES_MIN
)]
pub(super) struct TooSmall {
    bytes: u64,
}

/// Whole blocks to be written at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// Where, in bytes; a multiple of [`BLOCK_BYTES`].
    pub(super) offset: u64,
    /// A multiple of [`BLOCK_BYTES`] long.
    pub(super) bytes: Vec<u8>,
}

/// The writes that make a file system on a disk of so many bytes.
///
/// # Errors
///
/// When the disk is too small.
pub(super) fn format(size_bytes: u64, identity: &Identity) -> Result<Vec<Write>, TooSmall> {
    let geometry = Geometry::of(size_bytes).ok_or(TooSmall { bytes: size_bytes })?;
    let seed = crc32c(!0, &identity.uuid);
    let plan = Plan::of(&geometry);
    let bitmaps = Bitmaps::of(&geometry, &plan);

    let mut descriptors = Vec::new();
    for group in 0..geometry.groups {
        descriptors.extend(bitmaps.descriptor(&geometry, group, seed));
    }
    let mut writes = vec![
        block(0, superblock::block(&geometry, identity)),
        blocks(1, descriptors),
        block(geometry.block_bitmap(0), bitmaps.first.clone()),
        block(geometry.inode_bitmap(0), bitmaps.inodes.clone()),
        block(geometry.inode_table(0), plan.table(identity.made, seed)),
        block(plan.root.first, plan.root_directory(seed)),
        block(plan.lost.first, plan.lost_directory(seed)),
        blocks(plan.quota.first, quota::file(plan.usage())),
    ];
    if let Some(last) = &bitmaps.last {
        writes.push(block(
            geometry.block_bitmap(geometry.groups - 1),
            last.clone(),
        ));
    }
    Ok(writes)
}

fn block(number: u32, bytes: Vec<u8>) -> Write {
    blocks(number, bytes)
}

fn blocks(number: u32, mut bytes: Vec<u8>) -> Write {
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    Write {
        offset: u64::from(number) * BLOCK_BYTES as u64,
        bytes,
    }
}

/// Where the first files lie: right behind the first group's inode table.
struct Plan {
    root: Extent,
    lost: Extent,
    quota: Extent,
}

impl Plan {
    fn of(geometry: &Geometry) -> Self {
        let first = geometry.first_free(0);
        let root = Extent { first, blocks: 1 };
        let lost = Extent {
            first: first + 1,
            blocks: 1,
        };
        let quota = Extent {
            first: first + 2,
            blocks: quota::BLOCKS,
        };
        Self { root, lost, quota }
    }

    /// The first block behind them.
    fn end(&self) -> u32 {
        self.quota.first + self.quota.blocks
    }

    fn directories(&self) -> [Directory; 2] {
        [
            Directory::root(self.root),
            Directory::lost_and_found(self.lost),
        ]
    }

    /// What project 0, everybody's, uses.
    fn usage(&self) -> quota::Usage {
        let blocks = self.root.blocks + self.lost.blocks;
        quota::Usage {
            inodes: 2,
            bytes: u64::from(blocks) * BLOCK_BYTES as u64,
        }
    }

    /// The start of the inode table; the rest has no inode in use.
    fn table(&self, made: u32, seed: u32) -> Vec<u8> {
        let mut table = vec![0; USED_INODES * geometry::INODE_BYTES];
        let [root, lost] = self.directories();
        let quota = inodes::quota_inode(self.quota);
        for (owner, mut inode) in [
            (InodeOwner::BAD_BLOCKS, inodes::empty()),
            (InodeOwner::ROOT, root.inode()),
            (InodeOwner::LOST_AND_FOUND, lost.inode()),
            (InodeOwner::PROJECT_QUOTA, quota),
        ] {
            inodes::finish(&mut inode, owner, made, seed);
            inodes::place(&mut table, owner, &inode);
        }
        table
    }

    fn root_directory(&self, seed: u32) -> Vec<u8> {
        let [root, _] = self.directories();
        root.block(seed)
    }

    fn lost_directory(&self, seed: u32) -> Vec<u8> {
        let [_, lost] = self.directories();
        lost.block(seed)
    }
}

/// The bitmaps that have to be there: of the first group, and of a last one that is
/// shorter than the others.
struct Bitmaps {
    first: Vec<u8>,
    inodes: Vec<u8>,
    last: Option<Vec<u8>>,
    used: u32,
}

/// Group descriptor flags: no inode is in use, no block but the group's own metadata.
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

impl Bitmaps {
    fn of(geometry: &Geometry, plan: &Plan) -> Self {
        let used = plan.end();
        let last = (geometry.groups > 1).then(|| {
            let group = geometry.groups - 1;
            let own = geometry.first_free(group) - geometry.first_block(group);
            bitmap(own, geometry.group_blocks(group))
        });
        Self {
            first: bitmap(used, geometry.group_blocks(0)),
            inodes: bitmap(FIRST_FREE_INODE - 1, geometry.inodes_per_group),
            last,
            used,
        }
    }

    fn descriptor(&self, geometry: &Geometry, group: u32, seed: u32) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let last = group + 1 == geometry.groups;
        let (used_inodes, directories) = if group == 0 {
            (FIRST_FREE_INODE - 1, 2)
        } else {
            (0, 0)
        };
        let used = if group == 0 {
            self.used
        } else {
            geometry.first_free(group) - geometry.first_block(group)
        };
        let map = match &self.last {
            _ if group == 0 => Some(&self.first),
            Some(map) if last => Some(map),
            _ => None,
        };
        let mut flags = 0;
        if group != 0 {
            flags |= INODE_UNINIT;
        }
        if map.is_none() {
            flags |= BLOCK_UNINIT;
        }
        put32(&mut bytes, 0x00, geometry.block_bitmap(group));
        put32(&mut bytes, 0x04, geometry.inode_bitmap(group));
        put32(&mut bytes, 0x08, geometry.inode_table(group));
        bytes::put16_of(&mut bytes, 0x0c, geometry.group_blocks(group) - used);
        let free_inodes = geometry.inodes_per_group - used_inodes;
        bytes::put16_of(&mut bytes, 0x0e, free_inodes);
        bytes::put16_of(&mut bytes, 0x10, directories);
        bytes::put16(&mut bytes, 0x12, flags);
        if let Some(map) = map {
            bytes::put_split(&mut bytes, (0x18, 0x38), crc32c(seed, map));
        }
        if group == 0 {
            let inodes = self.inodes.get(..geometry.inode_bitmap_bytes());
            let sum = crc32c(seed, inodes.unwrap_or_default());
            bytes::put_split(&mut bytes, (0x1a, 0x3a), sum);
        }
        // What was never used need not be zero, and is not read.
        bytes::put16_of(&mut bytes, 0x1c, free_inodes);
        let sum = crc32c(crc32c(seed, &group.to_le_bytes()), &bytes);
        bytes::put16(&mut bytes, 0x1e, bytes::low_half(sum));
        bytes
    }
}

/// A block with the first `used` bits set, and those from `valid` on, which stand for
/// nothing.
fn bitmap(used: u32, valid: u32) -> Vec<u8> {
    let mut map = vec![0; BLOCK_BYTES];
    let bits = (0_u32..).take(BLOCK_BYTES * 8);
    for (bit, position) in bits.zip((0..BLOCK_BYTES * 8).map(|bit| (bit / 8, bit % 8))) {
        let (byte, shift) = position;
        if (bit < used || bit >= valid)
            && let Some(byte) = map.get_mut(byte)
        {
            *byte |= 1 << shift;
        }
    }
    map
}

#[cfg(test)]
mod tests;
