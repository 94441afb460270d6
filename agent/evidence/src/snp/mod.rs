//! AMD SEV-SNP: what a guest reads of its own report.
//!
//! Layout: AMD 56860 (SEV-SNP firmware ABI), structure `ATTESTATION_REPORT`.

mod coco;
mod layout;
mod own;

pub use self::{
    coco::coco_form,
    layout::{REPORT_LEN, ReportLengthError},
    own::{OwnReport, OwnReportError},
};
