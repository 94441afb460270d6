//! The table by which firmware checks a kernel that the VMM hands it.
//!
//! The VMM puts the SHA-256 of kernel, initrd and command line into a measured page; the
//! firmware compares what it is given with it. So the kernel itself need not be measured, and
//! a host cannot hand over another one (QEMU `target/i386/sev.c`, `SevHashTable`).

use crate::{
    bytes::put,
    digest::Sha256Digest,
    guid::Guid,
    page::{PAGE_BYTES, Page},
};

const TABLE: Guid = Guid::new(0x9438_d606, 0x4f22, 0x4cc9, 0xb479_a793_d411_fd21);
const COMMAND_LINE: Guid = Guid::new(0x97d0_2dd8, 0xbd20, 0x4c94, 0xaa78_e771_4d36_ab2a);
const INITRD: Guid = Guid::new(0x44ba_f731, 0x3a2f, 0x4bd7, 0x9af1_41e2_9169_781d);
const KERNEL: Guid = Guid::new(0x4de7_9437, 0xabd2, 0x427f, 0xb835_d5b1_72d2_045b);

/// A GUID, a `u16` size and a digest.
const ENTRY_BYTES: u16 = 16 + 2 + 32;
const TABLE_BYTES: u16 = 16 + 2 + 3 * ENTRY_BYTES;
/// The table is padded to a multiple of 16 bytes.
const PADDED_BYTES: usize = 176;
const _: () = assert!((TABLE_BYTES as usize).next_multiple_of(16) == PADDED_BYTES);

/// Digests of what the VMM hands to the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHashes {
    kernel: Sha256Digest,
    initrd: Sha256Digest,
    cmdline: Sha256Digest,
}

impl KernelHashes {
    /// From the digests of the kernel and the initrd files and from the command line.
    ///
    /// The kernel's digest is that of the file: QEMU leaves the setup header of an encrypted
    /// guest's kernel alone. Without an initrd the digest is that of nothing.
    #[must_use]
    pub fn new(kernel: Sha256Digest, initrd: Option<Sha256Digest>, cmdline: &str) -> Self {
        let mut line = cmdline.as_bytes().to_vec();
        line.push(0);
        Self {
            kernel,
            initrd: initrd.unwrap_or_else(|| Sha256Digest::of(b"")),
            cmdline: Sha256Digest::of(&line),
        }
    }

    /// The page that holds the table; `None` when the table does not fit behind the offset.
    pub(crate) fn page(&self, offset: usize) -> Option<Page> {
        let mut page = [0; PAGE_BYTES];
        let place = page.get_mut(offset..)?.get_mut(..PADDED_BYTES)?;
        put(place, 0, &TABLE.0);
        put(place, 16, &TABLE_BYTES.to_le_bytes());
        let entries = [
            (COMMAND_LINE, self.cmdline),
            (INITRD, self.initrd),
            (KERNEL, self.kernel),
        ];
        for ((guid, digest), at) in entries.into_iter().zip([18, 68, 118]) {
            put(place, at, &guid.0);
            put(place, at + 16, &ENTRY_BYTES.to_le_bytes());
            put(place, at + 18, digest.as_bytes());
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_must_fit_in_the_page() {
        let hashes = KernelHashes::new(Sha256Digest::of(b""), None, "");
        assert!(hashes.page(PAGE_BYTES - PADDED_BYTES).is_some());
        assert!(hashes.page(PAGE_BYTES - PADDED_BYTES + 1).is_none());
        assert!(hashes.page(usize::MAX).is_none());
    }

    #[test]
    fn every_input_shows() {
        let digest = Sha256Digest::of;
        let one = KernelHashes::new(digest(b"k"), Some(digest(b"i")), "c");
        let others = [
            KernelHashes::new(digest(b"K"), Some(digest(b"i")), "c"),
            KernelHashes::new(digest(b"k"), None, "c"),
            KernelHashes::new(digest(b"k"), Some(digest(b"i")), "c "),
        ];
        for other in others {
            assert_ne!(one.page(0), other.page(0));
        }
    }
}
