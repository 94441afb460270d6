//! What a TEE hands out, before anybody has judged it.

/// Longest container of certificates that is read, in bytes.
pub const MAX_CERTIFICATES_LEN: usize = 256 * 1024;

/// What the hardware gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obtained {
    /// SNP report, TDX quote, or the paravisor's blob around a report.
    pub report: Vec<u8>,
    /// The host's certificate table; may be empty.
    pub certificates: Vec<u8>,
}
