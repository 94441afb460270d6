//! The quota file of projects, format `vfsv1`: a radix tree of 1 KiB blocks, four
//! levels of 256 references, then entries (kernel, `fs/quota/quotaio_v2.h` and
//! `quota_tree.h`). It holds one entry, that of project 0, to which all belongs that
//! no volume owns; the kernel adds the others.

use super::{
    bytes::{put16, put32, put64},
    geometry::BLOCK_BYTES,
};

const PROJECT_MAGIC: u32 = 0xd9c0_3f14;
const VERSION: u32 = 1;
/// How long a soft limit may be exceeded, in seconds; there are none.
const GRACE: u32 = 7 * 24 * 3600;
const TREE_BLOCK_BYTES: usize = 1024;
/// Header, four levels, one block of entries.
const TREE_BLOCKS: u32 = 6;
const LEVELS: usize = 4;
const ENTRIES_HEADER_BYTES: usize = 16;

pub(super) const BYTES: u32 = TREE_BLOCKS * 1024;
pub(super) const BLOCKS: u32 = BYTES.div_ceil(4096);
const _: () = assert!(BLOCK_BYTES == 4096 && TREE_BLOCK_BYTES == 1024);

/// What a project uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) inodes: u64,
    pub(super) bytes: u64,
}

/// The file's content.
pub(super) fn file(usage: Usage) -> Vec<u8> {
    let mut file = vec![0; TREE_BLOCK_BYTES * (LEVELS + 2)];
    let entries = TREE_BLOCKS - 1;
    put32(&mut file, 0, PROJECT_MAGIC);
    put32(&mut file, 4, VERSION);
    put32(&mut file, 8, GRACE);
    put32(&mut file, 12, GRACE);
    put32(&mut file, 20, TREE_BLOCKS);
    // No free block; the block of entries has room.
    put32(&mut file, 28, entries);
    for (level, next) in (1..=LEVELS).zip(2_u32..) {
        // Every digit of project 0 is 0.
        put32(&mut file, level * TREE_BLOCK_BYTES, next);
    }
    let block = (LEVELS + 1) * TREE_BLOCK_BYTES;
    put16(&mut file, block + 8, 1);
    let entry = block + ENTRIES_HEADER_BYTES;
    put64(&mut file, entry + 24, usage.inodes);
    put64(&mut file, entry + 48, usage.bytes);
    file
}
