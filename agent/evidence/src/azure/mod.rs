//! Azure's confidential VMs with a paravisor (`az-snp-vtpm`).
//!
//! The paravisor owns the report; the guest has a TPM that it emulates. The report binds
//! the paravisor's runtime data, that names the TPM's attestation key, that signs a quote
//! over the verifier's nonce and the PCRs. The guest takes these parts and sends them.

mod evidence;
mod hcl;
mod quote;

pub use self::{
    evidence::{BASE64URL, HexQuote, VersionedForm, compose},
    hcl::{HclError, HclReport, MAX_HCL_LEN},
    quote::{Attest, AttestError, PCR_COUNT, Quote},
};
use crate::field::Sha384Digest;

/// What a quote that a workload asks for answers, for the runtime data that it gave.
///
/// The quote's key signs whatever it is asked to, and a key broker takes a quote over bytes of
/// its own choice for the guest's answer. So nothing that a workload chose is signed as it is.
#[must_use]
pub fn workload_nonce(runtime_data: &[u8]) -> Sha384Digest {
    Sha384Digest::of(&[b"kata-cc workload evidence\n", runtime_data])
}
