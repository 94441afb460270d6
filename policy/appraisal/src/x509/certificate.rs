//! One certificate, read once into a value that cannot be malformed.
//!
//! Reading proves nothing: who signed it is judged in [`crate::snp`].

use super::{
    der::{
        BOOLEAN, Der, DerError, IA5_STRING, INTEGER, OCTET_STRING, OID, PRINTABLE_STRING, SEQUENCE,
        SET, UTF8_STRING,
    },
    key::PublicKey,
    signature::{self, Scheme},
};
use crate::time::Timestamp;

/// Largest certificate read, in bytes; AMD's have below 2 KiB.
pub const MAX_CERTIFICATE_LEN: usize = 8 * 1024;

const VERSION_TAG: u8 = 0xA0;
const EXTENSIONS_TAG: u8 = 0xA3;
const VERSION_3: u8 = 2;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 0x13];
/// 2.5.29.15
const KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x0F];
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x25];
const DIGITAL_SIGNATURE: u8 = 0x80;
const KEY_CERT_SIGN: u8 = 0x04;
const CRL_SIGN: u8 = 0x02;

/// Bytes are not a certificate of a kind that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More bytes than any certificate we read.
    #[error("a certificate of {0} bytes is longer than {MAX_CERTIFICATE_LEN}")]
    TooLong(usize),
    /// Not the DER of a certificate.
    #[error("the certificate's encoding is wrong")]
    Der(#[from] DerError),
    /// Not version 3.
    #[error("the certificate is not of version 3")]
    Version,
    /// Inner and outer algorithm differ, or are not the one that its authority uses.
    #[error("the certificate's signature algorithm is not its authority's")]
    Algorithm,
    /// Neither RSA nor P-384.
    #[error("the certificate's key is neither rsa nor p-384")]
    Key,
    /// The subject or issuer has no common name, or two.
    #[error("a name of the certificate has not exactly one common name")]
    CommonName,
    /// The same extension twice.
    #[error("the certificate has an extension twice")]
    DoubledExtension,
    /// An extension that must be understood and is not.
    #[error("the certificate has a critical extension that is not understood")]
    CriticalExtension,
}

/// A distinguished name: compared as encoded, shown by its common name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name {
    encoded: Vec<u8>,
    pub(crate) common_name: String,
}

#[derive(Clone, PartialEq, Eq)]
struct Extension {
    oid: Vec<u8>,
    value: Vec<u8>,
}

/// A certificate whose form is right; nothing says yet who signed it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    encoded: Vec<u8>,
    signed: Vec<u8>,
    scheme: Scheme,
    signature: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) issuer: Name,
    pub(crate) subject: Name,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) key: PublicKey,
    extensions: Vec<Extension>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject.common_name)
            .field("issuer", &self.issuer.common_name)
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads one DER certificate of AMD's, which must be all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] names what is wrong with its form.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        Self::parse_signed_by(Scheme::Pss, bytes)
    }

    /// Reads one DER certificate of an authority that signs in this way.
    pub(crate) fn parse_signed_by(scheme: Scheme, bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_CERTIFICATE_LEN {
            return Err(CertificateError::TooLong(bytes.len()));
        }
        let mut outer = Der::new(bytes);
        let mut certificate = outer.open(SEQUENCE)?;
        outer.finish()?;
        let signed = certificate.element(SEQUENCE)?;
        let algorithm = certificate.element(SEQUENCE)?.encoded;
        let signature = certificate.octets_of_bit_string()?.to_vec();
        certificate.finish()?;

        let mut body = Der::new(signed.content);
        let mut version = body.open(VERSION_TAG)?;
        if version.unsigned()? != [VERSION_3] {
            return Err(CertificateError::Version);
        }
        version.finish()?;
        let serial = body.content(INTEGER)?.to_vec();
        if body.element(SEQUENCE)?.encoded != algorithm || !scheme.is_named_by(algorithm) {
            return Err(CertificateError::Algorithm);
        }
        let issuer = Name::read(&mut body)?;
        let mut validity = body.open(SEQUENCE)?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        validity.finish()?;
        let subject = Name::read(&mut body)?;
        let key = PublicKey::read(&mut body)?.ok_or(CertificateError::Key)?;
        let extensions = read_extensions(&mut body)?;
        body.finish()?;
        Ok(Self {
            encoded: bytes.to_vec(),
            signed: signed.encoded.to_vec(),
            scheme,
            signature,
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            key,
            extensions,
        })
    }

    /// The certificate as it was read.
    pub fn as_der(&self) -> &[u8] {
        &self.encoded
    }

    /// Common name of the subject, a claim of the certificate about itself.
    pub fn common_name(&self) -> &str {
        &self.subject.common_name
    }

    /// Whether `issuer` is a certificate authority, bears the name this certificate
    /// gives for its issuer, and signed it.
    pub(crate) fn is_issued_by(&self, issuer: &Self) -> bool {
        self.issuer == issuer.subject
            && issuer.may(KEY_CERT_SIGN)
            && signature::verifies(self.scheme, &issuer.key, &self.signed, &self.signature)
    }

    /// Whether this authority may sign revocation lists, and signed these bytes.
    pub(crate) fn signed_list(&self, message: &[u8], made: &[u8]) -> bool {
        self.may(CRL_SIGN) && signature::verifies(Scheme::Pss, &self.key, message, made)
    }

    /// Whether this is an end entity whose key may sign messages.
    pub(crate) fn is_message_signer(&self) -> bool {
        !self.is_authority() && self.has_usage(DIGITAL_SIGNATURE)
    }

    /// Whether the key made this signature, in RSASSA-PSS with SHA-384.
    pub(crate) fn signed_message(&self, message: &[u8], made: &[u8]) -> bool {
        signature::verifies(Scheme::Pss, &self.key, message, made)
    }

    /// Whether the extended key usages name this one, by the content octets of its OID.
    pub(crate) fn is_for(&self, purpose: &[u8]) -> bool {
        self.extension(EXTENDED_KEY_USAGE)
            .and_then(|value| read_purposes(value).ok())
            .is_some_and(|purposes| purposes.contains(&purpose))
    }

    /// The value of an extension, by the content octets of its OID.
    pub(crate) fn extension(&self, oid: &[u8]) -> Option<&[u8]> {
        let found = self.extensions.iter().find(|each| each.oid == oid)?;
        Some(&found.value)
    }

    pub(crate) fn is_valid_at(&self, at: Timestamp) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    fn may(&self, usage: u8) -> bool {
        self.is_authority() && self.has_usage(usage)
    }

    fn is_authority(&self) -> bool {
        self.extension(BASIC_CONSTRAINTS).is_some_and(|value| {
            let constraints = Der::new(value).open(SEQUENCE);
            constraints.is_ok_and(|mut inner| inner.boolean() == Ok(true))
        })
    }

    fn has_usage(&self, usage: u8) -> bool {
        let usages = self.extension(KEY_USAGE).and_then(|value| {
            match Der::new(value).content(super::der::BIT_STRING).ok()? {
                [_unused, first, ..] => Some(*first),
                _ => None,
            }
        });
        usages.is_some_and(|usages| usages & usage != 0)
    }
}

impl Name {
    pub(crate) fn read(der: &mut Der<'_>) -> Result<Self, CertificateError> {
        let name = der.element(SEQUENCE)?;
        let mut common_names = Vec::new();
        let mut relative_names = Der::new(name.content);
        while !relative_names.is_empty() {
            let mut attributes = relative_names.open(SET)?;
            while !attributes.is_empty() {
                let mut attribute = attributes.open(SEQUENCE)?;
                let kind = attribute.content(OID)?;
                let value = attribute.any()?;
                attribute.finish()?;
                if kind == COMMON_NAME {
                    common_names.push(value);
                }
            }
        }
        let [only] = common_names[..] else {
            return Err(CertificateError::CommonName);
        };
        let text = matches!(only.tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING)
            .then(|| std::str::from_utf8(only.content).ok())
            .flatten()
            .ok_or(CertificateError::CommonName)?;
        Ok(Self {
            encoded: name.encoded.to_vec(),
            common_name: text.to_owned(),
        })
    }
}

fn read_extensions(body: &mut Der<'_>) -> Result<Vec<Extension>, CertificateError> {
    let mut found: Vec<Extension> = Vec::new();
    if !body.next_is(EXTENSIONS_TAG) {
        return Ok(found);
    }
    let mut wrapped = body.open(EXTENSIONS_TAG)?;
    let mut extensions = wrapped.open(SEQUENCE)?;
    wrapped.finish()?;
    while !extensions.is_empty() {
        let mut extension = extensions.open(SEQUENCE)?;
        let oid = extension.content(OID)?.to_vec();
        let critical = extension.next_is(BOOLEAN) && extension.boolean()?;
        let value = extension.content(OCTET_STRING)?.to_vec();
        extension.finish()?;
        if found.iter().any(|each| each.oid == oid) {
            return Err(CertificateError::DoubledExtension);
        }
        if critical && oid != BASIC_CONSTRAINTS && oid != KEY_USAGE {
            return Err(CertificateError::CriticalExtension);
        }
        found.push(Extension { oid, value });
    }
    Ok(found)
}

fn read_purposes(value: &[u8]) -> Result<Vec<&[u8]>, DerError> {
    let mut outer = Der::new(value);
    let mut list = outer.open(SEQUENCE)?;
    outer.finish()?;
    let mut purposes = Vec::new();
    while !list.is_empty() {
        purposes.push(list.content(OID)?);
    }
    Ok(purposes)
}
