//! The superblock (kernel documentation, `ext4/super.rst`).

use super::{
    bytes::{put, put16, put32},
    crc32c::crc32c,
    geometry::{BLOCK_BYTES, BLOCKS_PER_GROUP, DESCRIPTOR_BYTES, Geometry, INODE_BYTES},
    identity::Identity,
    inodes::{EXTRA_BYTES, FIRST_FREE_INODE, FIRST_INODE, InodeOwner},
    quota,
};

/// In the first block, behind room for a boot sector.
const OFFSET: usize = 1024;
const BYTES: usize = 1024;
const MAGIC: u16 = 0xef53;
const CLEAN: u16 = 1;
/// What the kernel does when it finds an error: it writes no more.
const ERRORS_READ_ONLY: u16 = 2;
const HALF_MD4: u8 = 1;
const CHECKSUM_CRC32C: u8 = 1;

/// `ext_attr`, `dir_index`, `sparse_super2` (with no copies at all).
const COMPATIBLE: u32 = 0x8 | 0x20 | 0x200;
/// `filetype`, `extents`, `64bit` (for checksums of full length).
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x80;
/// `large_file`, `huge_file`, `dir_nlink`, `extra_isize`, `quota`, `metadata_csum`,
/// `project`.
const READ_ONLY_COMPATIBLE: u32 = 0x2 | 0x8 | 0x20 | 0x40 | 0x100 | 0x400 | 0x2000;

/// The first block.
pub(super) fn block(geometry: &Geometry, identity: &Identity) -> Vec<u8> {
    let inodes = geometry.inodes_per_group * geometry.groups;
    // The root, `lost+found`, the quota file.
    let files = 2 + quota::BLOCKS;
    let mut record = [0; BYTES];
    put32(&mut record, 0x00, inodes);
    put32(&mut record, 0x04, geometry.blocks);
    let free = geometry.blocks - geometry.overhead() - files;
    put32(&mut record, 0x0c, free);
    put32(&mut record, 0x10, inodes - (FIRST_FREE_INODE - 1));
    // Blocks, and clusters of one block, of 1024 << 2 bytes.
    put32(&mut record, 0x18, 2);
    put32(&mut record, 0x1c, 2);
    put32(&mut record, 0x20, BLOCKS_PER_GROUP);
    put32(&mut record, 0x24, BLOCKS_PER_GROUP);
    put32(&mut record, 0x28, geometry.inodes_per_group);
    put32(&mut record, 0x30, identity.made);
    put16(&mut record, 0x36, u16::MAX);
    put16(&mut record, 0x38, MAGIC);
    put16(&mut record, 0x3a, CLEAN);
    put16(&mut record, 0x3c, ERRORS_READ_ONLY);
    put32(&mut record, 0x40, identity.made);
    put32(&mut record, 0x4c, 1);
    put32(&mut record, 0x54, FIRST_INODE);
    let inode_bytes = u16::try_from(INODE_BYTES).unwrap_or(u16::MAX);
    put16(&mut record, 0x58, inode_bytes);
    put32(&mut record, 0x5c, COMPATIBLE);
    put32(&mut record, 0x60, INCOMPATIBLE);
    put32(&mut record, 0x64, READ_ONLY_COMPATIBLE);
    put(&mut record, 0x68, &identity.uuid);
    put(&mut record, 0x78, b"scratch");
    put(&mut record, 0xec, &identity.hash_seed);
    put(&mut record, 0xfc, &[HALF_MD4]);
    let descriptor_bytes = u16::try_from(DESCRIPTOR_BYTES).unwrap_or(u16::MAX);
    put16(&mut record, 0xfe, descriptor_bytes);
    put32(&mut record, 0x108, identity.made);
    put16(&mut record, 0x15c, EXTRA_BYTES);
    put16(&mut record, 0x15e, EXTRA_BYTES);
    // The hash of directories takes bytes as signed numbers.
    put32(&mut record, 0x160, 1);
    put(&mut record, 0x175, &[CHECKSUM_CRC32C]);
    put32(&mut record, 0x26c, InodeOwner::PROJECT_QUOTA.number());
    let sum = crc32c(!0, &record[..0x3fc]);
    put32(&mut record, 0x3fc, sum);
    let mut block = vec![0; BLOCK_BYTES];
    put(&mut block, OFFSET, &record);
    block
}
