//! What the programs of the guest and of the owner link from others.

use std::process::Command;

use tests_arrows::linked::{SEVERAL_VERSIONS, crates, other_providers, unexcused};

/// What a package links on the platform that is shipped.
fn tree(package: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--prefix=none",
            "--format={p}",
        ])
        .args(["--edges=normal,no-proc-macro", "--package", package])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, as it started this test");
    let text = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    assert!(
        output.status.success() && text.starts_with(package),
        "cargo tree says: {text}"
    );
    text
}

#[test]
fn guest_and_owner_have_one_provider_of_cryptography() {
    for package in ["agent", "policy-cli", "guest-image-builder"] {
        let tree = tree(package);
        let found = other_providers(&crates(&tree));
        assert!(
            found.is_empty(),
            "{package} links {found:?} beside aws-lc-rs"
        );
    }
}

#[test]
fn the_guest_links_one_version_of_each_crate_but_where_a_reason_is_given() {
    let tree = tree("agent");
    let crates = crates(&tree);
    let found = unexcused(&crates);
    assert!(
        found.is_empty(),
        "several versions of {found:?}, without a reason"
    );
    for (name, _) in SEVERAL_VERSIONS {
        let versions = crates.get(name).map_or(0, |versions| versions.len());
        assert!(versions > 1, "{name} needs no reason any more");
    }
}
