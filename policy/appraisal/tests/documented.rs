//! What `docs/threat-model.md` promises: a row for each check, and tests that exist.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use policy_appraisal::Check;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Names of all functions below `directory`, tests or not.
fn functions(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let found = source.split("fn ").skip(1).filter_map(|rest| {
                rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next()
            });
            names.extend(found.map(str::to_owned));
        }
    }
}

#[test]
fn the_threat_model_names_every_check_and_only_tests_that_exist() {
    let model = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let rows: Vec<_> = model
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for check in Check::ALL {
        let row = rows
            .iter()
            .find(|row| quoted(row).next() == Some(check.name()));
        let row = row.unwrap_or_else(|| panic!("{check} has no row"));
        assert!(quoted(row).count() >= 3, "{check} lacks a test: {row}");
    }
    let mut names = BTreeSet::new();
    for folder in ["agent", "guest-image", "policy", "shim", "tests"] {
        functions(&root().join(folder), &mut names);
    }
    // Tests are named as claims: at least two underscores.
    let claims = quoted(&model).filter(|word| word.matches('_').count() >= 2);
    let absent: Vec<_> = claims.filter(|claim| !names.contains(*claim)).collect();
    assert_eq!(absent, Vec::<&str>::new());
}
