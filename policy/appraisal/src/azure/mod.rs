//! Evidence of Azure's confidential VMs with a paravisor (`az-snp-vtpm`).
//!
//! The paravisor owns the report; the guest has a TPM that it emulates. One chain of
//! proof: the report binds the paravisor's runtime data, that names the TPM's
//! attestation key, that signs a quote over the guest's nonce and PCRs. Nobody but
//! the report is believed before the link above it has held. From version 2 of the
//! evidence on the runtime data have the nonce as well, so that the report is as new as
//! the quote.

mod appraise;
mod evidence;
mod runtime_data;

pub use self::{
    appraise::{AzureExpected, PcrReferences},
    evidence::{AzureEvidence, AzureEvidenceError, UserData},
};
