//! The guest's hardware: what makes reports, and its TPM.

use agent_evidence::{
    snp::OwnReportError,
    tee::{TeeError, tpm::TpmError},
};

use crate::told::{field::Field, text::Told};

/// Hardware that gives no report.
pub(crate) fn tee(error: &TeeError) -> Told {
    match error {
        TeeError::File { step, source, .. } => {
            Told::new("cannot {step} the kernel's interface to the secure processor")
                .with(Field::step(step))
                .errno(source)
        }
        TeeError::Provider(_) => Told::new("the report provider is unknown"),
        TeeError::Raced => Told::new("the report entry was changed while it was read"),
        TeeError::Refused { firmware, .. } => {
            Told::new("the secure processor refused: firmware error {code}")
                .with(Field::code(*firmware))
        }
        TeeError::Busy(_) => Told::new("the host stayed busy"),
        TeeError::Answer => Told::new("the secure processor's answer is malformed"),
        TeeError::Silent(time) => {
            Told::new("the secure processor did not answer within {seconds} seconds")
                .with(Field::seconds(time.as_secs()))
        }
        TeeError::OtherLog => Told::new("the tpm has another measurement log than was given"),
        TeeError::Tpm(error) => Told::new("the paravisor's tpm cannot be used").because(tpm(error)),
    }
}

/// A TPM that fails.
pub(super) fn tpm(error: &TpmError) -> Told {
    match error {
        TpmError::Device { step, source, .. } => Told::new("cannot {step} the tpm")
            .with(Field::step(step))
            .errno(source),
        TpmError::Open(error) => Told::new("cannot open the tpm").errno(error),
        TpmError::Refused { code, .. } => {
            Told::new("the tpm refused a command with code {code}").with(Field::code(*code))
        }
        TpmError::Malformed { .. } => Told::new("the tpm's response is malformed"),
        TpmError::NoBank(_) => Told::new("the tpm lacks a bank of pcrs"),
        TpmError::Nonce(_) => Told::new("the nonce is longer than a tpm's quote takes"),
        TpmError::IndexSize { .. } => Told::new("an nv index of the tpm has another size"),
        TpmError::Pcrs => Told::new("the tpm's pcrs are not those that its quote signed"),
    }
}

/// The guest's own report.
pub(super) fn own_report(error: &OwnReportError) -> Told {
    match error {
        OwnReportError::Kind(_) => {
            Told::new("the guest's own report is of a tee that this build cannot read")
        }
        OwnReportError::Random => Told::new("no random bytes for the guest's own report"),
        OwnReportError::Obtain(error) => {
            Told::new("the guest's own report cannot be had").because(tee(error))
        }
        OwnReportError::Length(_) => Told::new("the guest's own report cannot be read"),
        OwnReportError::Stale => {
            Told::new("the guest's own report does not carry the bytes that were asked for")
        }
    }
}
