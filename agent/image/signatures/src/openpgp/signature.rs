//! Signature packets of version 4 (RFC 9580, section 5.2).
//!
//! Only hashed subpackets are believed. Who issued a signature is also read from the
//! others: it only selects the key, and a wrong one selects a key that does not verify.

use super::{
    crypto::{Hash, Proof, Public},
    cursor::Cursor,
    error::OpenPgpError,
};

/// Over a document's bytes.
pub(super) const BINARY: u8 = 0x00;
pub(super) const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
pub(super) const SUBKEY_BINDING: u8 = 0x18;
pub(super) const PRIMARY_BINDING: u8 = 0x19;
pub(super) const DIRECT_KEY: u8 = 0x1f;
pub(super) const KEY_REVOCATION: u8 = 0x20;
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;
pub(super) const CERTIFICATION_REVOCATION: u8 = 0x30;

const CREATED: u8 = 2;
const EXPIRES: u8 = 3;
const KEY_EXPIRES: u8 = 9;
const ISSUER: u8 = 16;
const KEY_FLAGS: u8 = 27;
const EMBEDDED: u8 = 32;
const ISSUER_FINGERPRINT: u8 = 33;

/// Subpackets that change nothing here, so that they may be critical: exportable,
/// revocable, preferences, primary user id, policy address, signer's user id,
/// revocation reason and features.
const HARMLESS: [u8; 12] = [4, 7, 11, 21, 22, 23, 24, 25, 26, 28, 29, 30];

/// More subpackets than any real signature has.
const SUBPACKETS_MAX: usize = 64;

/// Flag of a key that signs.
const FLAG_SIGN: u8 = 0x02;

/// Who made a signature, as the signature says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Issuer {
    pub(super) fingerprint: Option<[u8; 20]>,
    pub(super) id: Option<u64>,
}

/// One signature, not yet verified.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub(super) kind: u8,
    pub(super) algorithm: u8,
    pub(super) hash: u8,
    pub(super) created: u32,
    /// Seconds after its creation.
    pub(super) expires: Option<u32>,
    /// Seconds after the key's creation.
    pub(super) key_expires: Option<u32>,
    pub(super) key_flags: Option<u8>,
    pub(super) issuer: Issuer,
    /// A signature inside, which speaks for itself.
    pub(super) embedded: Option<Vec<u8>>,
    /// A critical subpacket that is not understood.
    critical: Option<u8>,
    /// The packet from its version to its hashed subpackets.
    hashed: Vec<u8>,
    proof: Proof,
}

impl Signature {
    /// Reads a signature packet's body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, OpenPgpError> {
        match body.first() {
            Some(4) => {}
            Some(other) => {
                return Err(OpenPgpError::Unsupported(format!(
                    "a signature of version {other}"
                )));
            }
            None => return Err(OpenPgpError::Malformed("a signature is empty")),
        }
        let truncated = || OpenPgpError::Malformed("a signature is cut off");
        let mut cursor = Cursor::new(body);
        let head = cursor.take(4).ok_or_else(truncated)?;
        let &[_, kind, algorithm, hash] = head else {
            return Err(truncated());
        };
        let mut area = || {
            let length = usize::from(cursor.u16()?);
            cursor.take(length)
        };
        let (hashed, unhashed) = (area().ok_or_else(truncated)?, area().ok_or_else(truncated)?);
        // The first 16 bits of the digest; they prove nothing that the signature does not.
        cursor.take(2).ok_or_else(truncated)?;
        let mut fields = Fields::default();
        fields.read(hashed, true)?;
        fields.read(unhashed, false)?;
        let created = fields.created.ok_or(OpenPgpError::Malformed(
            "a signature does not say when it was made",
        ))?;
        Ok(Self {
            kind,
            algorithm,
            hash,
            created,
            expires: fields.expires.filter(|seconds| *seconds != 0),
            key_expires: fields.key_expires.filter(|seconds| *seconds != 0),
            key_flags: fields.key_flags,
            issuer: fields.issuer,
            embedded: fields.embedded,
            critical: fields.critical,
            hashed: body.get(..6 + hashed.len()).unwrap_or_default().to_vec(),
            proof: Proof::parse(algorithm, cursor.rest())?,
        })
    }

    /// Verifies it over what it is about, given as parts that follow each other.
    pub(super) fn verify(&self, key: &Public, parts: &[&[u8]]) -> Result<bool, OpenPgpError> {
        let hash = Hash::parse(self.hash)?;
        if let Some(critical) = self.critical {
            return Err(OpenPgpError::CriticalSubpacket(critical));
        }
        let length = u32::try_from(self.hashed.len())
            .map_err(|_| OpenPgpError::Malformed("a signature is too long"))?;
        let mut message = parts.concat();
        message.extend_from_slice(&self.hashed);
        message.extend([0x04, 0xff]);
        message.extend(length.to_be_bytes());
        key.verifies(hash, &message, &self.proof)
    }

    /// Whether its key flags allow signing; `None` without flags.
    pub(super) fn allows_signing(&self) -> Option<bool> {
        self.key_flags.map(|flags| flags & FLAG_SIGN != 0)
    }

    /// When it stops being valid, in seconds since 1970.
    pub(super) fn valid_until(&self) -> Option<u64> {
        self.expires
            .map(|seconds| u64::from(self.created) + u64::from(seconds))
    }
}

/// The issuer's key id of a version 3 signature, which has no subpackets (section 5.2.2).
pub(super) fn version_3_issuer(body: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(body);
    cursor.take(7)?;
    cursor.u64()
}

#[derive(Default)]
struct Fields {
    created: Option<u32>,
    expires: Option<u32>,
    key_expires: Option<u32>,
    key_flags: Option<u8>,
    issuer: Issuer,
    embedded: Option<Vec<u8>>,
    critical: Option<u8>,
}

impl Fields {
    fn read(&mut self, area: &[u8], hashed: bool) -> Result<(), OpenPgpError> {
        let mut cursor = Cursor::new(area);
        for _ in 0..SUBPACKETS_MAX {
            if cursor.is_empty() {
                return Ok(());
            }
            let (head, body) = subpacket(&mut cursor).ok_or(OpenPgpError::Malformed(
                "a signature's subpackets are broken",
            ))?;
            self.take(head, body, hashed)?;
        }
        Err(OpenPgpError::Malformed(
            "a signature has too many subpackets",
        ))
    }

    fn take(&mut self, head: u8, body: &[u8], hashed: bool) -> Result<(), OpenPgpError> {
        let (critical, kind) = (head & 0x80 != 0, head & 0x7f);
        let mut cursor = Cursor::new(body);
        match (kind, hashed) {
            (CREATED, true) => once(&mut self.created, cursor.u32()),
            (EXPIRES, true) => once(&mut self.expires, cursor.u32()),
            (KEY_EXPIRES, true) => once(&mut self.key_expires, cursor.u32()),
            // The first byte has all flags that matter; an empty one allows nothing.
            (KEY_FLAGS, true) => once(&mut self.key_flags, Some(cursor.u8().unwrap_or(0))),
            (ISSUER, _) => {
                self.issuer.id = self.issuer.id.or(cursor.u64());
                Ok(())
            }
            (ISSUER_FINGERPRINT, _) => {
                // Version 4 fingerprints only; other keys are not in our key rings.
                let found = body
                    .strip_prefix(&[4])
                    .and_then(|rest| rest.try_into().ok());
                self.issuer.fingerprint = self.issuer.fingerprint.or(found);
                Ok(())
            }
            (EMBEDDED, _) => {
                self.embedded.get_or_insert_with(|| body.to_vec());
                Ok(())
            }
            // Nobody protects the unhashed ones, so they can demand nothing.
            (_, true) if critical && !HARMLESS.contains(&kind) => {
                self.critical = Some(kind);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Sets a field that may be given once: two values would be read differently by different programs.
fn once<T>(field: &mut Option<T>, value: Option<T>) -> Result<(), OpenPgpError> {
    match (field.is_some(), value) {
        (false, Some(value)) => *field = Some(value),
        (false, None) => return Err(OpenPgpError::Malformed("a subpacket is too short")),
        (true, _) => return Err(OpenPgpError::Malformed("a subpacket is given twice")),
    }
    Ok(())
}

/// Type and content of the next subpacket (section 5.2.3.7).
fn subpacket<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, &'a [u8])> {
    let length = match cursor.u8()? {
        first @ 0..=191 => usize::from(first),
        255 => usize::try_from(cursor.u32()?).ok()?,
        first => ((usize::from(first) - 192) << 8) + usize::from(cursor.u8()?) + 192,
    };
    let mut body = Cursor::new(cursor.take(length)?);
    Some((body.u8()?, body.rest()))
}
