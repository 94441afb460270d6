//! Public keys of version 4 (RFC 9580, sections 5.5.2.2 and 5.5.4).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{crypto::Public, cursor::Cursor, error::OpenPgpError, signature::Issuer};

/// A primary key or subkey.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) fingerprint: [u8; 20],
    /// In seconds since 1970.
    pub(super) created: u32,
    pub(super) public: Public,
    /// What signatures about the key hash: `0x99`, the length, the packet.
    pub(super) hashed: Vec<u8>,
}

impl Key {
    /// Reads a key packet's body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, OpenPgpError> {
        let truncated = || OpenPgpError::Malformed("a key is cut off");
        let mut cursor = Cursor::new(body);
        match cursor.u8().ok_or_else(truncated)? {
            4 => {}
            other => {
                return Err(OpenPgpError::Unsupported(format!(
                    "a key of version {other}"
                )));
            }
        }
        let created = cursor.u32().ok_or_else(truncated)?;
        let algorithm = cursor.u8().ok_or_else(truncated)?;
        let public = Public::parse(algorithm, cursor.rest())?;
        let length =
            u16::try_from(body.len()).map_err(|_| OpenPgpError::Malformed("a key is too long"))?;
        let mut hashed = vec![0x99];
        hashed.extend(length.to_be_bytes());
        hashed.extend_from_slice(body);
        let mut fingerprint = [0; 20];
        fingerprint.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref());
        Ok(Self {
            fingerprint,
            created,
            public,
            hashed,
        })
    }

    /// The last eight bytes of the fingerprint.
    pub(super) fn id(&self) -> u64 {
        let mut cursor = Cursor::new(&self.fingerprint);
        cursor.take(12);
        cursor.u64().unwrap_or(0)
    }

    /// Whether a signature says that this key made it; one that says nothing may be anybody's.
    pub(super) fn may_have_made(&self, issuer: Issuer) -> bool {
        issuer
            .fingerprint
            .is_none_or(|fingerprint| fingerprint == self.fingerprint)
            && issuer.id.is_none_or(|id| id == self.id())
    }

    pub(super) fn name(&self) -> String {
        hex(&self.fingerprint)
    }
}

/// Upper-case hexadecimal, as OpenPGP tools show fingerprints.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
