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
