//! Verdicts: every check by name, with what was expected and what was received.
//!
//! A verdict is accepted only if each check it set out to make was made and passed.
//! A check that was not reached counts against it, and is shown as such.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

macro_rules! checks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// The checks, by the order in which they are made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Check {
            $($(#[$doc])* #[serde(rename = $name)] $variant),+
        }

        impl Check {
            /// Every check there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name, as printed and in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

checks! {
    /// The endorsement certificate has every extension of its kind, once, in form.
    Certificate = "certificate",
    /// Leaf, intermediate and pinned root of one product sign each other.
    Chain = "chain",
    /// Every certificate of the chain is valid at the given time.
    Validity = "validity",
    /// A fresh list of the root names no certificate of the chain.
    Revocation = "revocation",
    /// The leaf's key signed the report's bytes as received.
    Signature = "signature",
    /// Version is known, reserved bits are zero, the algorithm is ECDSA P-384.
    Format = "format",
    /// The report's key selector, the certificate's name and its issuer agree.
    SigningKey = "signing-key",
    /// Certificate, root and CPUID name one product.
    Product = "product",
    /// The owner does not refuse the product.
    RefusedProduct = "refused-product",
    /// The report's chip is the certificate's.
    ChipId = "chip-id",
    /// Each component of the reported TCB is the certificate's.
    TcbBinding = "tcb-binding",
    /// No TCB of the report is below the product's floor.
    TcbFloor = "tcb-floor",
    /// Reported TCB ≤ committed TCB ≤ current TCB.
    TcbOrder = "tcb-order",
    /// The firmware's version is not below the product's floor.
    FirmwareFloor = "firmware-floor",
    /// The guest cannot be debugged.
    Debug = "debug",
    /// The guest cannot be migrated.
    Migration = "migration",
    /// The rest of the guest policy.
    GuestPolicy = "guest-policy",
    /// The report was asked for from the expected privilege level.
    Vmpl = "vmpl",
    /// All 64 bytes of report data.
    ReportData = "report-data",
    /// All 32 bytes of host data.
    HostData = "host-data",
    /// An accepted issuer endorsed the launch measurement, at a sufficient version.
    UvmEndorsement = "uvm-endorsement",
    /// The launch measurement or the signed identity is a reference value, or endorsed.
    GuestIdentity = "guest-identity",
    /// The author key's digest is there if and only if the report says so.
    AuthorKey = "author-key",
    /// Features of the platform.
    Platform = "platform",
    /// Mitigations reported by the firmware.
    Mitigations = "mitigations",
    /// The paravisor's runtime data names one attestation key.
    RuntimeData = "runtime-data",
    /// The attestation key signed the TPM quote.
    QuoteSignature = "quote-signature",
    /// The quote carries the expected nonce.
    QuoteNonce = "quote-nonce",
    /// The report binds the same nonce, in evidence that says so.
    UserData = "user-data",
    /// The quote covers all 24 PCRs of the SHA-256 bank and these values.
    QuotePcrs = "quote-pcrs",
    /// PCRs are the reference values.
    PcrValues = "pcr-values",
    /// PCR 8 holds the initdata digest.
    Initdata = "initdata",
    /// The measurement log replays to the value that the evidence binds.
    MeasurementLog = "measurement-log",
    /// Nothing is in the log that the owner did not name.
    Workload = "workload",
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What was received is what was expected.
    Passed,
    /// It is not.
    Refused,
    /// An earlier refusal left nothing to judge.
    NotReached,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Refused => "REFUSED",
            Self::NotReached => "not reached",
        })
    }
}

/// One check with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// How it ended.
    pub outcome: Outcome,
    /// What passes.
    pub expected: String,
    /// What was there.
    pub received: String,
}

/// All findings on one piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "evidence is only as good as its verdict"]
pub struct Verdict {
    findings: Vec<Finding>,
}

impl Verdict {
    /// Whether every check was made and passed.
    pub fn is_accepted(&self) -> bool {
        !self.findings.is_empty()
            && self
                .findings
                .iter()
                .all(|finding| finding.outcome == Outcome::Passed)
    }

    /// The findings, in the order of the checks.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The checks that refused.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.outcome == Outcome::Refused)
    }

    /// How one check ended, if it was to be made.
    pub fn outcome(&self, check: Check) -> Option<Outcome> {
        let found = self
            .findings
            .iter()
            .find(|finding| finding.check == check)?;
        Some(found.outcome)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut verdict = serializer.serialize_struct("Verdict", 2)?;
        verdict.serialize_field("accepted", &self.is_accepted())?;
        verdict.serialize_field("checks", &self.findings)?;
        verdict.end()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write!(f, "{:<16} {:<12}", finding.check, finding.outcome)?;
            match finding.outcome {
                Outcome::NotReached => writeln!(f, "-")?,
                Outcome::Passed => writeln!(f, "{}", finding.received)?,
                Outcome::Refused => {
                    writeln!(
                        f,
                        "received {}; expected {}",
                        finding.received, finding.expected
                    )?;
                }
            }
        }
        f.write_str(if self.is_accepted() {
            "accepted"
        } else {
            "refused"
        })
    }
}

/// Collects findings for a fixed list of checks.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    planned: Vec<Check>,
    made: Vec<Finding>,
}

impl Findings {
    pub(crate) fn plan(checks: &[&[Check]]) -> Self {
        Self {
            planned: checks.concat(),
            made: Vec::new(),
        }
    }

    /// Notes one check. Made twice, both must pass.
    pub(crate) fn note(
        &mut self,
        check: Check,
        passed: bool,
        expected: impl fmt::Display,
        received: impl fmt::Display,
    ) -> bool {
        self.made.push(Finding {
            check,
            outcome: if passed {
                Outcome::Passed
            } else {
                Outcome::Refused
            },
            expected: expected.to_string(),
            received: received.to_string(),
        });
        passed
    }

    /// Notes a check that compares one value with the one expected.
    pub(crate) fn compare<T: PartialEq + fmt::Display>(
        &mut self,
        check: Check,
        expected: &T,
        received: &T,
    ) -> bool {
        self.note(check, expected == received, expected, received)
    }

    pub(crate) fn also_plan(&mut self, checks: &[Check]) {
        self.planned.extend_from_slice(checks);
    }

    pub(crate) fn into_verdict(self) -> Verdict {
        let mut findings = self.made;
        for check in self.planned {
            if !findings.iter().any(|finding| finding.check == check) {
                findings.push(Finding {
                    check,
                    outcome: Outcome::NotReached,
                    expected: String::new(),
                    received: String::new(),
                });
            }
        }
        findings.sort_by_key(|finding| finding.check);
        Verdict { findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_was_not_reached_refuses() {
        let mut findings = Findings::plan(&[&[Check::Chain, Check::Debug]]);
        findings.note(Check::Chain, true, "a", "a");
        let verdict = findings.into_verdict();
        assert!(!verdict.is_accepted());
        assert_eq!(verdict.outcome(Check::Debug), Some(Outcome::NotReached));
    }

    #[test]
    fn nothing_judged_is_nothing_accepted() {
        assert!(!Findings::plan(&[]).into_verdict().is_accepted());
    }

    #[test]
    fn json_and_table_show_every_check() {
        let mut findings = Findings::plan(&[&[Check::Chain, Check::Debug]]);
        findings.note(Check::Debug, false, "off", "on");
        let verdict = findings.into_verdict();
        assert_eq!(
            serde_json::to_string(&verdict).unwrap(),
            r#"{"accepted":false,"checks":[{"check":"chain","outcome":"not-reached","expected":"","received":""},{"check":"debug","outcome":"refused","expected":"off","received":"on"}]}"#
        );
        assert_eq!(
            verdict.to_string(),
            "chain            not reached -\ndebug            REFUSED     received on; expected off\nrefused"
        );
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<_> =
            Check::ALL.iter().map(|check| check.name()).collect();
        assert_eq!(names.len(), Check::ALL.len());
    }
}
