//! What comes with a report to vouch for it: certificates as PEM, DER, or the host's
//! certificate table, in any order, with or without the root, some of them twice;
//! revocation lists; at most one UVM endorsement.
//!
//! All of it comes from the host or the network. Entries that are no certificate
//! or revocation list are an error; which of them count is judged later.

use agent_evidence::{
    MAX_CERTIFICATES_LEN,
    bytes::{Reader, Truncated, all_zero},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    uvm::{EndorsementFormError, UnverifiedEndorsement},
    x509::{Certificate, CertificateError, Crl, CrlError, Der, DerError},
};

/// Most certificates or revocation lists kept.
pub const MAX_CERTIFICATES: usize = 32;

/// An entry of the certificate table: GUID, offset, length (AMD 56421, GHCB, extended guest request).
const TABLE_ENTRY_LEN: usize = 24;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// GUIDs of certificate table entries, bytes in the order of their text.
mod guid {
    /// c0b406a4-a803-4952-9743-3fb6014cd0ae
    pub(super) const ARK: [u8; 16] =
        *b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae";
    /// 4ab7b379-bbac-4fe4-a02f-05aef327c782
    pub(super) const ASK: [u8; 16] =
        *b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82";
    /// 63da758d-e664-4564-adc5-f4b93be8accd
    pub(super) const VCEK: [u8; 16] =
        *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
    /// a8074bc2-a25a-483e-aae6-39c045a0b8a1
    pub(super) const VLEK: [u8; 16] =
        *b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1";
    /// 92f81bc3-5811-4d3d-97ff-d19f88dc67ea
    pub(super) const CRL: [u8; 16] =
        *b"\x92\xf8\x1b\xc3\x58\x11\x4d\x3d\x97\xff\xd1\x9f\x88\xdc\x67\xea";
}

/// Bytes are no container of certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// More bytes than any container we read.
    #[error("certificates of {0} bytes together are longer than {MAX_CERTIFICATES_LEN}")]
    TooLong(usize),
    /// More entries than we keep.
    #[error("there are more than {MAX_CERTIFICATES} certificates or revocation lists")]
    TooMany,
    /// The table ends before an entry, or an entry points outside.
    #[error("the certificate table's lengths are wrong")]
    Table(#[from] Truncated),
    /// An entry lies before the end of the table itself.
    #[error("an entry of the certificate table points into the table")]
    Overlap,
    /// A PEM block without its end, or with text that is not base64.
    #[error("a pem block is not well formed")]
    Pem,
    /// A PEM block that is neither certificate nor revocation list.
    #[error("a pem block is neither a certificate nor a revocation list")]
    Label,
    /// DER elements do not add up.
    #[error("the certificates' encoding is wrong")]
    Der(#[from] DerError),
    /// A certificate is malformed.
    #[error("a certificate among the endorsements is malformed")]
    Certificate(#[from] CertificateError),
    /// A revocation list is malformed.
    #[error("a revocation list among the endorsements is malformed")]
    Crl(#[from] CrlError),
}

/// Certificates, revocation lists and the UVM endorsement that came with evidence.
/// None is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endorsements {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) crls: Vec<Crl>,
    pub(crate) uvm: Option<UnverifiedEndorsement>,
}

impl Endorsements {
    /// Reads PEM, concatenated DER, or a certificate table: whichever it is.
    ///
    /// # Errors
    ///
    /// [`ContainerError`] names the entry's fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContainerError> {
        let mut endorsements = Self::default();
        endorsements.add(bytes)?;
        Ok(endorsements)
    }

    /// Adds what another container holds. Certificates already here are skipped.
    ///
    /// # Errors
    ///
    /// [`ContainerError`] names the entry's fault.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        if bytes.len() > MAX_CERTIFICATES_LEN {
            return Err(ContainerError::TooLong(bytes.len()));
        }
        match bytes {
            [] => Ok(()),
            [0x30, 0x81..=0x83, ..] => self.add_der(bytes),
            _ => match std::str::from_utf8(bytes) {
                Ok(text) if text.contains(BEGIN) => self.add_pem(text),
                _ => self.add_table(bytes),
            },
        }
    }

    /// Adds a revocation list, DER or PEM.
    ///
    /// # Errors
    ///
    /// [`ContainerError`] names its fault.
    pub fn add_crl(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        match bytes {
            [0x30, ..] => self.push_crl(bytes),
            _ => self.add(bytes),
        }
    }

    /// Adds the UVM endorsement of the image that booted, raw or in base64, in place
    /// of an earlier one.
    ///
    /// # Errors
    ///
    /// [`EndorsementFormError`] names its fault.
    pub fn add_uvm_endorsement(&mut self, bytes: &[u8]) -> Result<(), EndorsementFormError> {
        self.uvm = Some(UnverifiedEndorsement::parse(bytes)?);
        Ok(())
    }

    /// The certificates, in the order they came.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The revocation lists, in the order they came.
    pub fn crls(&self) -> &[Crl] {
        &self.crls
    }

    fn add_der(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        let mut elements = Der::new(bytes);
        while !elements.is_empty() {
            self.push_certificate(elements.any()?.encoded)?;
        }
        Ok(())
    }

    fn add_pem(&mut self, text: &str) -> Result<(), ContainerError> {
        let mut rest = text;
        while let Some((_, block)) = rest.split_once(BEGIN) {
            let (label, block) = block.split_once(DASHES).ok_or(ContainerError::Pem)?;
            let end = format!("-----END {label}-----");
            let (body, after) = block.split_once(&end).ok_or(ContainerError::Pem)?;
            let body: String = body.split_ascii_whitespace().collect();
            let der = STANDARD.decode(body).map_err(|_| ContainerError::Pem)?;
            match label {
                "CERTIFICATE" => self.push_certificate(&der)?,
                "X509 CRL" => self.push_crl(&der)?,
                _ => return Err(ContainerError::Label),
            }
            rest = after;
        }
        Ok(())
    }

    fn add_table(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        let mut entries = Vec::new();
        let mut table = Reader::new(bytes);
        loop {
            let entry = table.take(TABLE_ENTRY_LEN)?;
            if all_zero(entry) {
                break;
            }
            if entries.len() == MAX_CERTIFICATES {
                return Err(ContainerError::TooMany);
            }
            let mut entry = Reader::new(entry);
            entries.push((entry.array::<16>()?, entry.u32_le()?, entry.u32_le()?));
        }
        let table_len = bytes.len() - table.rest().len();
        for (guid, offset, length) in entries {
            let mut data = Reader::new(bytes);
            if data.take_u32(offset)?.len() < table_len {
                return Err(ContainerError::Overlap);
            }
            let content = data.take_u32(length)?;
            match guid {
                _ if content.is_empty() => {}
                guid::ARK | guid::ASK | guid::VCEK | guid::VLEK => self.add_entry(content)?,
                guid::CRL => self.add_crl(content)?,
                // The table may carry what vendors add; it has no meaning here.
                _ => {}
            }
        }
        Ok(())
    }

    /// Tables hold DER by the specification, PEM on some clouds.
    fn add_entry(&mut self, content: &[u8]) -> Result<(), ContainerError> {
        match std::str::from_utf8(content) {
            Ok(text) if text.contains(BEGIN) => self.add_pem(text),
            _ => self.push_certificate(content),
        }
    }

    fn push_certificate(&mut self, der: &[u8]) -> Result<(), ContainerError> {
        let certificate = Certificate::parse(der)?;
        if self.certificates.contains(&certificate) {
            return Ok(());
        }
        if self.certificates.len() == MAX_CERTIFICATES {
            return Err(ContainerError::TooMany);
        }
        self.certificates.push(certificate);
        Ok(())
    }

    fn push_crl(&mut self, der: &[u8]) -> Result<(), ContainerError> {
        let crl = Crl::parse(der)?;
        if self.crls.contains(&crl) {
            return Ok(());
        }
        if self.crls.len() == MAX_CERTIFICATES {
            return Err(ContainerError::TooMany);
        }
        self.crls.push(crl);
        Ok(())
    }
}
