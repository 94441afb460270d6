//! AMD SEV-SNP: report, endorsement by AMD's certificates, appraisal.
//!
//! [`UnverifiedReport`] → [`AuthenticReport`] → [`crate::Verdict`]. Only the second
//! has fields to read, and only [`UnverifiedReport::authenticate`] makes one.
//!
//! Layouts: AMD 56860 (SEV-SNP firmware ABI), structure `ATTESTATION_REPORT`; AMD 57230
//! (VCEK certificate and KDS interface).

mod appraise;
mod authentic;
mod authenticate;
mod endorsed;
mod endorser;
mod fields;
mod identities;
mod ids;
mod json;
mod layout;
mod product;
mod references;
mod report;
mod roots;
mod rules;
mod sources;
mod tcb;
mod thim;

pub use self::{
    appraise::Expected,
    authentic::AuthenticReport,
    endorser::SigningKey,
    fields::{FirmwareVersion, FirmwareVersionError, GuestPolicy, PlatformInfo},
    identities::{CombinedIdentity, EndorsedIdentity, Identities, SignedIdentity},
    ids::{BlockId, ChipId, KeyDigest, ReportId},
    json::{JsonEvidence, JsonEvidenceError, REPORT_JSON_LIMIT},
    product::{Product, ProductError},
    references::{
        GuestPolicyRules, PlatformRules, ProductFloor, ReferenceValues, Revocation, TcbFloor,
    },
    report::{EndorsementLocator, UnverifiedReport},
    roots::{Roots, RootsError},
    rules::{Levels, Mitigations, Rule},
    sources::{Store, StoreError},
    tcb::Tcb,
    thim::{ThimCertificates, ThimError},
};
