//! A secure processor and its certificate authority, played by the tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod authority;
pub mod der;
#[path = "../../../../agent/evidence/tests/support/hcl.rs"]
pub mod hcl;
pub mod scene;
pub mod uvm;

use std::{fs, path::Path};

use policy_appraisal::{Check, Outcome, Timestamp, Verdict};

/// A file of the vectors.
pub fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The time at which vectors are judged.
pub fn pinned_time() -> Timestamp {
    "2025-06-01T00:00:00Z".parse().unwrap()
}

/// The checks that refused, in order, each once.
pub fn refusals(verdict: &Verdict) -> Vec<Check> {
    let mut checks: Vec<Check> = verdict.refusals().map(|finding| finding.check).collect();
    checks.dedup();
    assert_eq!(verdict.is_accepted(), all_passed(verdict), "{verdict}");
    checks
}

fn all_passed(verdict: &Verdict) -> bool {
    verdict
        .findings()
        .iter()
        .all(|finding| finding.outcome == Outcome::Passed)
}
