//! The launch digest as AMD 56860 describes it, written down a second time and plainly.

use sha2::{Digest, Sha384};

/// Page types of `SNP_LAUNCH_UPDATE`.
pub(crate) const NORMAL: u8 = 1;
pub(crate) const VMSA: u8 = 2;
pub(crate) const ZERO: u8 = 3;
pub(crate) const UNMEASURED: u8 = 4;
pub(crate) const SECRETS: u8 = 5;
pub(crate) const CPUID: u8 = 6;

/// A page: type, address, and the byte that it is filled with if it is measured.
pub(crate) type Page = (u8, u64, Vec<u8>);

pub(crate) fn launch_digest(pages: &[Page]) -> String {
    let mut digest = vec![0; 48];
    for (kind, gpa, content) in pages {
        let contents = match *kind {
            NORMAL | VMSA => Sha384::digest(content).to_vec(),
            _ => vec![0; 48],
        };
        let mut info = digest;
        info.extend(contents);
        info.extend(0x70_u16.to_le_bytes());
        info.push(*kind);
        // IMI and the permissions of the other privilege levels.
        info.extend([0; 5]);
        info.extend(gpa.to_le_bytes());
        assert_eq!(info.len(), 0x70);
        digest = Sha384::digest(&info).to_vec();
    }
    hex::encode(digest)
}

/// A page full of one byte.
pub(crate) fn filled(byte: u8) -> Vec<u8> {
    vec![byte; 4096]
}
