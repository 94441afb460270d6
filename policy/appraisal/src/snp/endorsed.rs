//! The UVM endorsement beside a report: authentic, and of this guest.
//!
//! It is a check of its own, made when the owner accepts endorsements or one is given,
//! so that neither a missing endorsement nor one that nobody asked for goes unseen.

use agent_evidence::LaunchMeasurement;

use super::{EndorsedIdentity, ReferenceValues};
use crate::{
    endorsements::Endorsements,
    time::Timestamp,
    uvm::{AuthenticEndorsement, EndorsementError},
    verdict::{Check, Findings},
};

pub(super) fn plan(
    endorsements: &Endorsements,
    references: &ReferenceValues,
    findings: &mut Findings,
) {
    if endorsements.uvm.is_some() || !references.identities.endorsed.is_empty() {
        findings.also_plan(&[Check::UvmEndorsement]);
    }
}

/// The endorsement, if it is authentic; whether it is of this guest is judged later.
pub(super) fn authenticate(
    endorsements: &Endorsements,
    references: &ReferenceValues,
    at: Timestamp,
    findings: &mut Findings,
) -> Option<AuthenticEndorsement> {
    let accepted = &references.identities.endorsed;
    let Some(endorsement) = &endorsements.uvm else {
        if !accepted.is_empty() {
            let wanted = describe(accepted);
            findings.note(Check::UvmEndorsement, false, wanted, "no UVM endorsement");
        }
        return None;
    };
    let issuers = accepted.iter().map(|identity| &identity.issuer);
    match endorsement.authenticate(issuers, at) {
        Ok(authentic) => Some(authentic),
        Err(error) => {
            let received = explain(&error);
            findings.note(Check::UvmEndorsement, false, describe(accepted), received);
            None
        }
    }
}

/// Whether an accepted issuer endorses exactly this measurement.
pub(super) fn judge(
    endorsement: &AuthenticEndorsement,
    accepted: &[EndorsedIdentity],
    measurement: LaunchMeasurement,
    findings: &mut Findings,
) -> bool {
    let is_accepted = accepted.iter().any(|identity| {
        identity.issuer == *endorsement.issuer()
            && identity.feed == endorsement.feed()
            && identity.minimum_svn <= endorsement.svn()
    });
    let is_of_this_guest = endorsement.measurement() == measurement;
    findings.note(
        Check::UvmEndorsement,
        is_accepted && is_of_this_guest,
        format_args!("{}, measurement {measurement}", describe(accepted)),
        endorsement,
    )
}

fn describe(accepted: &[EndorsedIdentity]) -> String {
    let each: Vec<String> = accepted
        .iter()
        .map(|identity| {
            let EndorsedIdentity {
                issuer,
                feed,
                minimum_svn,
            } = identity;
            format!("{feed} by {issuer}, svn at least {minimum_svn}")
        })
        .collect();
    match each[..] {
        [] => "an accepted UVM endorsement among the reference values".to_owned(),
        _ => each.join(", or "),
    }
}

fn explain(error: &EndorsementError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
