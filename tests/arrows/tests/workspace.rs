//! This workspace has only the arrows that are allowed.

use std::process::Command;

use tests_arrows::{ALLOWED, forbidden};

fn metadata() -> String {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, as it started this test");
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

#[test]
fn no_arrow_is_forbidden() {
    let found = forbidden(&metadata()).expect("cargo prints metadata");
    assert!(found.is_empty(), "forbidden arrows: {found:?}");
}

#[test]
fn the_table_names_no_crate_that_is_gone() {
    let metadata = metadata();
    for (folder, _) in ALLOWED {
        assert!(
            metadata.contains(&format!("/{folder}/Cargo.toml")),
            "{folder}"
        );
    }
}
