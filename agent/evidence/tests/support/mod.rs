//! A secure processor and its certificate authority, played by the tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod authority;
pub mod der;
pub mod scene;
pub mod swtpm;
pub mod uvm;

use std::{fs, path::Path};

use agent_evidence::{Check, Outcome, Timestamp, Verdict};

/// A file of the vectors.
pub fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A paravisor's blob around a report and runtime data.
pub fn hcl_blob(report: &[u8], data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).unwrap();
    let mut blob = b"HCLA".to_vec();
    for field in [2, 0x4C0 + 20 + size, 2, 0, 0, 0, 0] {
        blob.extend(field.to_le_bytes());
    }
    blob.extend(report);
    for field in [20 + size, 1, 2, 1, size] {
        blob.extend(field.to_le_bytes());
    }
    blob.extend(data);
    blob
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
