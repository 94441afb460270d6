//! Why somebody gets nothing: which check, what it expected, what it received, and what the
//! owner would change if the guest is right.

use policy_appraisal::{Check, Finding, Outcome, Verdict};
use serde::{Deserialize, Serialize};

/// Longest text of a stranger that is kept, in characters.
const TEXT_MAX: usize = 512;

/// One check that refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The check, as `kata-cc verify` names it, or one of the broker's own.
    pub check: String,
    /// What would have passed.
    pub expected: String,
    /// What was there.
    pub received: String,
    /// What the owner would change to let this guest in.
    pub advice: String,
}

impl Refusal {
    /// A refusal of the broker's own.
    pub fn new(check: &str, expected: &str, received: impl Into<String>, advice: &str) -> Self {
        Self {
            check: check.to_owned(),
            expected: short(expected),
            received: short(&received.into()),
            advice: advice.to_owned(),
        }
    }

    /// Every check of a verdict that refused; those that were not reached if none did.
    pub fn of_verdict(verdict: &Verdict) -> Vec<Self> {
        let with = |outcome| {
            let findings = verdict.findings().iter();
            let found = findings.filter(move |finding| finding.outcome == outcome);
            found.map(Self::of).collect::<Vec<_>>()
        };
        let refused = with(Outcome::Refused);
        if refused.is_empty() && !verdict.is_accepted() {
            return with(Outcome::NotReached);
        }
        refused
    }

    fn of(finding: &Finding) -> Self {
        Self {
            check: finding.check.name().to_owned(),
            expected: short(&finding.expected),
            received: short(&finding.received),
            advice: advice(finding.check).to_owned(),
        }
    }
}

/// The names of the checks, for whoever is refused.
pub fn names(refusals: &[Refusal]) -> String {
    let names: Vec<&str> = refusals.iter().map(|one| one.check.as_str()).collect();
    names.join(", ")
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

fn advice(check: Check) -> &'static str {
    match check {
        Check::GuestIdentity => {
            "if this image is yours, add its measurement to identities.measurements of the references; `kata-cc measure IMAGE --explain DIGEST` says which launch it is"
        }
        Check::ReportData => {
            "nothing: this evidence answers another challenge, or is bound to another guest's key"
        }
        Check::TcbFloor | Check::FirmwareFloor => {
            "update the node's firmware, or lower the floor under products of the references"
        }
        Check::RefusedProduct => "set refused_products of the references without this product",
        Check::Platform => "change the node's platform settings, or `platform` of the references",
        Check::GuestPolicy => {
            "change the policy that the node launches guests with, or guest_policy of the references"
        }
        Check::Chain | Check::Certificate | Check::Revocation | Check::Validity => {
            "give certificates and revocation lists: `certificates` of broker.toml names a directory that `kata-cc verify --store DIR --kds URL` fills"
        }
        Check::Debug | Check::Migration | Check::Signature => {
            "nothing: no setting lets such a guest in"
        }
        _ => "see docs/verify.md for what this check reads",
    }
}
