//! Revocation lists (RFC 5280, 5), as far as the ARK's need.
//!
//! AMD's lists are direct and complete. One that claims to cover only a part says
//! so in a critical extension, and is refused: its silence would prove nothing.

use super::{
    certificate::{Certificate, CertificateError, Name},
    der::{
        BOOLEAN, Der, DerError, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, UTC_TIME,
    },
    signature::Scheme,
};
use crate::time::Timestamp;

/// Largest list read, in bytes.
pub const MAX_CRL_LEN: usize = 64 * 1024;

const EXTENSIONS_TAG: u8 = 0xA0;
const VERSION_2: u8 = 1;

/// Bytes are not a revocation list that can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// More bytes than any list we read.
    #[error("a revocation list of {0} bytes is longer than {MAX_CRL_LEN}")]
    TooLong(usize),
    /// Not the DER of a list.
    #[error("the revocation list's encoding is wrong")]
    Der(#[from] DerError),
    /// Not version 2.
    #[error("the revocation list is not of version 2")]
    Version,
    /// Inner and outer algorithm differ, or are not RSASSA-PSS with SHA-384.
    #[error("the revocation list's signature algorithm is not rsassa-pss with sha-384")]
    Algorithm,
    /// The issuer's name is not one.
    #[error("the revocation list's issuer has no proper name")]
    Issuer(#[source] CertificateError),
    /// No time is given at which the next list appears.
    #[error("the revocation list does not say when the next one appears")]
    NoNextUpdate,
    /// An extension that must be understood and is not.
    #[error("the revocation list has a critical extension that is not understood")]
    CriticalExtension,
}

/// A revocation list whose form is right; nothing says yet who signed it.
#[derive(Clone, PartialEq, Eq)]
pub struct Crl {
    encoded: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    issuer: Name,
    pub(crate) this_update: Timestamp,
    pub(crate) next_update: Timestamp,
    revoked: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Crl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer.common_name)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

impl Crl {
    /// Reads one DER list, which must be all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`CrlError`] names what is wrong with its form.
    pub fn parse(bytes: &[u8]) -> Result<Self, CrlError> {
        if bytes.len() > MAX_CRL_LEN {
            return Err(CrlError::TooLong(bytes.len()));
        }
        let mut outer = Der::new(bytes);
        let mut list = outer.open(SEQUENCE)?;
        outer.finish()?;
        let signed = list.element(SEQUENCE)?;
        let algorithm = list.element(SEQUENCE)?.encoded;
        let made = list.octets_of_bit_string()?.to_vec();
        list.finish()?;

        let mut body = Der::new(signed.content);
        if !body.next_is(INTEGER) || body.unsigned()? != [VERSION_2] {
            return Err(CrlError::Version);
        }
        if body.element(SEQUENCE)?.encoded != algorithm || !Scheme::Pss.is_named_by(algorithm) {
            return Err(CrlError::Algorithm);
        }
        let issuer = Name::read(&mut body).map_err(CrlError::Issuer)?;
        let this_update = body.time()?;
        if !body.next_is(UTC_TIME) && !body.next_is(GENERALIZED_TIME) {
            return Err(CrlError::NoNextUpdate);
        }
        let next_update = body.time()?;
        let revoked = read_revoked(&mut body)?;
        if body.next_is(EXTENSIONS_TAG) {
            let mut wrapped = body.open(EXTENSIONS_TAG)?;
            refuse_critical(&mut wrapped)?;
            wrapped.finish()?;
        }
        body.finish()?;
        Ok(Self {
            encoded: bytes.to_vec(),
            signed: signed.encoded.to_vec(),
            signature: made,
            issuer,
            this_update,
            next_update,
            revoked,
        })
    }

    /// The list as it was read.
    pub fn as_der(&self) -> &[u8] {
        &self.encoded
    }

    pub(crate) fn is_signed_by(&self, authority: &Certificate) -> bool {
        self.issuer == authority.subject && authority.signed_list(&self.signed, &self.signature)
    }

    pub(crate) fn revokes(&self, certificate: &Certificate) -> bool {
        self.revoked.contains(&certificate.serial)
    }
}

fn read_revoked(body: &mut Der<'_>) -> Result<Vec<Vec<u8>>, CrlError> {
    let mut revoked = Vec::new();
    if !body.next_is(SEQUENCE) {
        return Ok(revoked);
    }
    let mut entries = body.open(SEQUENCE)?;
    while !entries.is_empty() {
        let mut entry = entries.open(SEQUENCE)?;
        revoked.push(entry.content(INTEGER)?.to_vec());
        entry.time()?;
        if entry.next_is(SEQUENCE) {
            refuse_critical(&mut entry)?;
        }
        entry.finish()?;
    }
    Ok(revoked)
}

fn refuse_critical(der: &mut Der<'_>) -> Result<(), CrlError> {
    let mut extensions = der.open(SEQUENCE)?;
    while !extensions.is_empty() {
        let mut extension = extensions.open(SEQUENCE)?;
        extension.content(OID)?;
        if extension.next_is(BOOLEAN) && extension.boolean()? {
            return Err(CrlError::CriticalExtension);
        }
        extension.content(OCTET_STRING)?;
        extension.finish()?;
    }
    Ok(())
}
