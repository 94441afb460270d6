//! `kata-cc verify --uvm-endorsement` on the real report of a container group on ACI.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod owner;

use std::{path::Path, process::Output};

use owner::{Owner, outcome, references, vector};
use serde_json::Value;

fn verify(owner: &Owner, references: &Value, endorsement: Option<&Path>) -> Output {
    match endorsement {
        Some(path) => owner.verify(references, &["--uvm-endorsement", path.to_str().unwrap()]),
        None => owner.verify(references, &[]),
    }
}

#[test]
fn an_endorsed_image_is_accepted_and_one_below_the_floor_is_not() {
    let owner = Owner::new();
    let real = vector("body.uvm_reference_info.bin");
    let both = ["uvm-endorsement", "guest-identity"].map(str::to_owned);
    let given = verify(&owner, &references(22), Some(&real));
    assert_eq!(outcome(&given), (0, Vec::new()));
    let below = verify(&owner, &references(100), Some(&real));
    assert_eq!(outcome(&below), (1, both.to_vec()));
    let other = vector("context.reference-info-base64");
    let other = verify(&owner, &references(22), Some(&other));
    assert_eq!(outcome(&other), (1, both.to_vec()));
    let none = verify(&owner, &references(22), None);
    assert_eq!(outcome(&none), (1, both.to_vec()));
}

#[test]
fn a_file_that_is_no_endorsement_is_named() {
    let owner = Owner::new();
    let report = verify(&owner, &references(22), Some(&vector("snp_report.bin")));
    assert_eq!(report.status.code(), Some(3));
    let errors = String::from_utf8(report.stderr).unwrap();
    assert!(errors.contains("the UVM endorsement"), "{errors}");
    assert!(errors.contains("snp_report.bin"), "{errors}");
}
