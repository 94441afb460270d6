//! TPM quotes: `TPMS_ATTEST` (TPM 2.0 library, part 2, 10.12.8), its signature, and
//! the PCR values it covers. Big-endian.
//!
//! The guest reads its own to see that the PCRs it read are those that were signed.

use crate::{
    bytes::{Reader, Truncated},
    field::Sha256Digest,
};

/// PCRs of a bank.
pub const PCR_COUNT: usize = 24;

const GENERATED: [u8; 4] = *b"\xFFTCG";
const ATTEST_QUOTE: u16 = 0x8018;
const SHA_256: u16 = 0x000B;
const ALL_PCRS: [u8; 3] = [0xFF; 3];
/// Largest name, nonce or digest in the structure.
const MAX_FIELD_LEN: u16 = 256;

/// Bytes are not a quote of all PCRs of the SHA-256 bank.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// A length points past the end.
    #[error("the quote is cut off")]
    Truncated(#[from] Truncated),
    /// A TPM did not make it, or not as a quote.
    #[error("the structure is not a quote made by a tpm")]
    NotAQuote,
    /// A field is longer than its type can hold.
    #[error("a field of the quote has {0} bytes")]
    FieldTooLong(u16),
    /// Other PCRs or another bank than all of SHA-256.
    #[error("the quote does not select exactly all pcrs of the sha-256 bank")]
    Selection,
    /// Bytes follow the structure.
    #[error("{0} bytes follow the quote")]
    Trailing(usize),
}

/// What a quote says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// Qualifying data: the nonce.
    pub nonce: Vec<u8>,
    /// Digest over the selected PCRs.
    pub pcr_digest: Vec<u8>,
}

/// A quote as received: signature, signed bytes and the PCRs it is said to cover.
#[derive(Clone, PartialEq, Eq)]
pub struct Quote {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    pub signature: Vec<u8>,
    /// The `TPMS_ATTEST`.
    pub message: Vec<u8>,
    /// All PCRs of the SHA-256 bank.
    pub pcrs: [Sha256Digest; PCR_COUNT],
}

impl std::fmt::Debug for Quote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Quote(..)")
    }
}

impl Attest {
    /// Reads a quote over exactly all PCRs of the SHA-256 bank.
    ///
    /// # Errors
    ///
    /// [`AttestError`] says what else it is.
    pub fn parse(message: &[u8]) -> Result<Self, AttestError> {
        let mut attest = Reader::new(message);
        if attest.array()? != GENERATED || attest.u16_be()? != ATTEST_QUOTE {
            return Err(AttestError::NotAQuote);
        }
        let _qualified_signer = sized(&mut attest)?;
        let nonce = sized(&mut attest)?.to_vec();
        let (_clock, _resets, _restarts) = (attest.u64_be()?, attest.u32_be()?, attest.u32_be()?);
        let (_clock_is_safe, _firmware) = (attest.u8()?, attest.u64_be()?);
        if attest.u32_be()? != 1
            || attest.u16_be()? != SHA_256
            || attest.u8()? != 3
            || attest.array()? != ALL_PCRS
        {
            return Err(AttestError::Selection);
        }
        let pcr_digest = sized(&mut attest)?.to_vec();
        match attest.rest().len() {
            0 => Ok(Self { nonce, pcr_digest }),
            trailing => Err(AttestError::Trailing(trailing)),
        }
    }
}

impl Quote {
    /// Whether the PCR values are those that the message signs; nothing else is judged.
    pub(crate) fn covers_its_pcrs(&self) -> bool {
        let attest = Attest::parse(&self.message);
        attest.is_ok_and(|attest| attest.pcr_digest == self.pcr_digest().0)
    }

    /// Digest over the PCR values, as a TPM computes it.
    pub fn pcr_digest(&self) -> Sha256Digest {
        let values: Vec<&[u8]> = self.pcrs.iter().map(|pcr| &pcr.0[..]).collect();
        Sha256Digest::of(&values)
    }
}

fn sized<'a>(attest: &mut Reader<'a>) -> Result<&'a [u8], AttestError> {
    match attest.u16_be()? {
        length if length > MAX_FIELD_LEN => Err(AttestError::FieldTooLong(length)),
        length => Ok(attest.take(usize::from(length))?),
    }
}
