//! The paravisor's blob: a hardware report and the runtime data it binds.
//!
//! It comes from the TPM's NV index 0x01400001, little-endian, padded with zeros.

use serde::Deserialize;

use crate::{
    bytes::{Reader, Truncated, all_zero},
    field::ReportData,
    snp::REPORT_LEN,
};

/// Largest blob read, in bytes; the ones seen have 2048 and 2600.
pub const MAX_HCL_LEN: usize = 64 * 1024;

const MAGIC: [u8; 4] = *b"HCLA";
const HEADER_LEN: usize = 32;
const REQUEST_HEADER_LEN: u64 = 20;
const SNP: u32 = 2;
const SHA_256: u32 = 1;

const _: () = assert!(HEADER_LEN + REPORT_LEN == 0x4C0);

/// Bytes are not a paravisor's blob around an SNP report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HclError {
    /// More bytes than any blob has.
    #[error("an hcl report of {0} bytes is longer than {MAX_HCL_LEN}")]
    TooLong(usize),
    /// A length points past the end.
    #[error("the hcl report is cut off")]
    Truncated(#[from] Truncated),
    /// Not this format, or a later version.
    #[error("the hcl report's header is unknown")]
    Header,
    /// The report inside is of another TEE.
    #[error("the hcl report holds a report of type {0}, not of snp (2)")]
    ReportType(u32),
    /// Runtime data are bound by another hash than SHA-256.
    #[error("the hcl report binds its runtime data by hash type {0}, not by sha-256 (1)")]
    HashType(u32),
    /// Lengths that must agree do not.
    #[error("the hcl report says that its {what} has {said} bytes, and it has {found}")]
    Lengths {
        /// Which part.
        what: &'static str,
        /// What a field of the blob says.
        said: u32,
        /// What its parts add up to.
        found: u64,
    },
    /// Bytes after the runtime data are not zero.
    #[error("something follows the hcl report's runtime data")]
    Trailing,
}

/// The paravisor's blob, taken apart. Neither part is proven.
#[derive(Clone, PartialEq, Eq)]
pub struct HclReport {
    report: Box<[u8; REPORT_LEN]>,
    runtime_data: Vec<u8>,
}

#[derive(Deserialize)]
struct IncludedData {
    #[serde(rename = "user-data")]
    user_data: String,
}

impl std::fmt::Debug for HclReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HclReport(..)")
    }
}

impl HclReport {
    /// Takes the blob apart.
    ///
    /// # Errors
    ///
    /// [`HclError`] names what is wrong with its form, or that it is not SNP's.
    pub fn parse(bytes: &[u8]) -> Result<Self, HclError> {
        if bytes.len() > MAX_HCL_LEN {
            return Err(HclError::TooLong(bytes.len()));
        }
        let mut blob = Reader::new(bytes);
        let (magic, version) = (blob.array()?, blob.u32_le()?);
        let (report_size, request, status) = (blob.u32_le()?, blob.u32_le()?, blob.u32_le()?);
        blob.take(12)?;
        if magic != MAGIC || !matches!(version, 1 | 2) || request != 2 || status != 0 {
            return Err(HclError::Header);
        }
        let report = Box::new(blob.array()?);
        let (data_size, _version) = (blob.u32_le()?, blob.u32_le()?);
        let (report_type, hash_type) = (blob.u32_le()?, blob.u32_le()?);
        let variable_size = blob.u32_le()?;
        if report_type != SNP {
            return Err(HclError::ReportType(report_type));
        }
        if hash_type != SHA_256 {
            return Err(HclError::HashType(hash_type));
        }
        let runtime_data = blob.take_u32(variable_size)?;
        let used = u64::try_from(bytes.len() - blob.rest().len()).unwrap_or(u64::MAX);
        let request_len = u64::from(variable_size) + REQUEST_HEADER_LEN;
        for (what, said, found) in [
            ("request data", data_size, request_len),
            ("whole", report_size, used),
        ] {
            if u64::from(said) != found {
                return Err(HclError::Lengths { what, said, found });
            }
        }
        if !all_zero(blob.rest()) {
            return Err(HclError::Trailing);
        }
        Ok(Self {
            report,
            runtime_data: runtime_data.to_vec(),
        })
    }

    /// The report inside.
    pub fn report(&self) -> &[u8; REPORT_LEN] {
        &self.report
    }

    /// The runtime data, which the report's data are the SHA-256 of.
    pub fn runtime_data(&self) -> &[u8] {
        &self.runtime_data
    }

    /// What the guest had the paravisor include, if it says so in its way: hexadecimal.
    pub fn user_data(&self) -> Option<ReportData> {
        let data: IncludedData = agent_documents::parse_json(&self.runtime_data).ok()?;
        data.user_data.to_ascii_lowercase().parse().ok()
    }
}
