//! Which crate may depend on which: the trust boundary, checked.
//!
//! The node's side (`shim/`) may be malicious and the guest's side (`agent/`) is
//! measured; they share `agent/protocol` and nothing else, but for `agent/documents` below
//! it, the limits of every JSON and TOML document. [`ALLOWED`] says so in
//! full, and [`forbidden`] reads `cargo metadata` and names every arrow that is
//! not in it. Test crates may depend on anything; nothing but tests depends on them.

pub mod linked;

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

/// Each crate's folder and the folders it may depend on.
pub const ALLOWED: &[(&str, &[&str])] = &[
    ("agent/protocol", &["agent/documents"]),
    ("policy/engine", &["agent/protocol", "agent/documents"]),
    // Judges what the guest composes; no crate of the guest may name it.
    ("policy/appraisal", &["agent/evidence", "agent/documents"]),
    (
        "policy/broker",
        &[
            "policy/appraisal",
            "agent/documents",
            "agent/evidence",
            "agent/keys/protocol",
            // Initdata, which a report binds.
            "agent/protocol",
        ],
    ),
    (
        "policy/cli",
        &[
            "policy/engine",
            "policy/appraisal",
            "policy/broker",
            // Initdata, which the owner writes in the format that the guest reads.
            "agent/protocol",
            "agent/evidence",
            "agent/documents",
            // The owner pulls and decrypts with what the guest pulls and decrypts with.
            "agent/image",
            "agent/image/registry",
            "agent/image/signatures",
            "agent/image/unpacking",
            "agent/keys",
            // How a guest reads where its broker is: the owner writes nothing that it refuses.
            "agent/keys/broker",
            "agent/keys/protocol",
            "policy/generator",
            "policy/images",
            "policy/run",
            "guest-image/measurement",
        ],
    ),
    (
        "policy/generator",
        &[
            "policy/engine",
            "policy/images",
            "agent/protocol",
            "agent/documents",
            // Images are looked up with what the guest pulls them with.
            "agent/image",
            "agent/image/registry",
        ],
    ),
    (
        "policy/images",
        &[
            "agent/documents",
            "agent/image",
            "agent/image/registry",
            "agent/keys",
        ],
    ),
    (
        "policy/run",
        &["agent/documents", "agent/protocol", "policy/generator"],
    ),
    ("agent/documents", &[]),
    ("agent/evaluator", &["agent/protocol", "policy/engine"]),
    ("agent/evidence", &["agent/documents"]),
    ("agent/image/registry", &["agent/documents"]),
    (
        "agent/image/signatures",
        &["agent/documents", "agent/image/registry", "agent/keys"],
    ),
    (
        "agent/image/unpacking",
        &["agent/documents", "agent/image/registry", "agent/keys"],
    ),
    (
        "agent/image",
        &[
            "agent/documents",
            "agent/protocol",
            "agent/image/registry",
            "agent/image/signatures",
            "agent/image/unpacking",
            "agent/keys",
        ],
    ),
    ("agent/keys", &["agent/evidence", "agent/documents"]),
    (
        "agent/keys/broker",
        &[
            "agent/documents",
            "agent/evidence",
            // One stack for HTTP and TLS in the guest.
            "agent/image/registry",
            "agent/keys",
            "agent/keys/protocol",
        ],
    ),
    // What the guest and the owner's broker say to each other; both link it.
    ("agent/keys/protocol", &["agent/documents", "agent/keys"]),
    ("agent/measured", &["agent/evidence"]),
    ("agent/scratch-disk", &["agent/protocol"]),
    (
        "agent/requests",
        &["agent/documents", "agent/protocol", "policy/engine"],
    ),
    (
        "agent/containers",
        &[
            "agent/documents",
            "agent/protocol",
            "policy/engine",
            "agent/evidence",
            "agent/image",
            "agent/image/registry",
            "agent/image/unpacking",
            "agent/keys",
            "agent/measured",
            "agent/requests",
            "agent/scratch-disk",
            "agent/workload",
        ],
    ),
    (
        "agent/workload",
        &[
            "agent/evidence",
            "agent/protocol",
            "agent/requests",
            "policy/engine",
        ],
    ),
    (
        "agent",
        &[
            "agent/protocol",
            "policy/engine",
            "agent/containers",
            "agent/evaluator",
            "agent/evidence",
            "agent/image",
            "agent/image/registry",
            "agent/image/signatures",
            "agent/image/unpacking",
            "agent/keys",
            "agent/keys/broker",
            "agent/measured",
            "agent/requests",
            "agent/scratch-disk",
            "agent/workload",
        ],
    ),
    ("guest-image/measurement", &["agent/documents"]),
    (
        "guest-image/builder",
        &["agent/documents", "guest-image/measurement"],
    ),
    ("shim/agent-client", &["agent/protocol"]),
    ("shim/configuration", &["agent/protocol", "shim/oci"]),
    ("shim/hypervisor", &["agent/documents"]),
    ("shim/node", &["agent/documents", "shim/hypervisor"]),
    ("shim/oci", &["agent/protocol"]),
    ("shim/snapshotter", &["agent/documents"]),
    (
        "shim/volumes",
        &["agent/protocol", "shim/agent-client", "shim/oci"],
    ),
    (
        "shim",
        &[
            "agent/protocol",
            "shim/agent-client",
            "shim/configuration",
            "shim/hypervisor",
            "shim/oci",
            "shim/volumes",
        ],
    ),
];

/// The folder whose crates may depend on anything.
const TESTS: &str = "tests/";

#[derive(Debug, Deserialize)]
struct Metadata {
    workspace_root: String,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    /// Set for a dependency in the workspace.
    path: Option<String>,
}

/// The arrows, as `from -> to`, that `cargo metadata --no-deps` has and [`ALLOWED`] has not;
/// a crate that [`ALLOWED`] does not know is listed by itself.
///
/// # Errors
/// When `metadata` is not what cargo prints.
pub fn forbidden(metadata: &str) -> Result<BTreeSet<String>, serde_json::Error> {
    let metadata: Metadata = serde_json::from_str(metadata)?;
    let root = Path::new(&metadata.workspace_root);
    let mut found = BTreeSet::new();
    for package in &metadata.packages {
        let manifest = Path::new(&package.manifest_path);
        let from = folder(root, manifest.parent().unwrap_or(root));
        if from.starts_with(TESTS) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(folder, _)| *folder == from) else {
            found.insert(from);
            continue;
        };
        for path in package
            .dependencies
            .iter()
            .filter_map(|one| one.path.as_ref())
        {
            let to = folder(root, Path::new(path));
            if !allowed.contains(&to.as_str()) {
                found.insert(format!("{from} -> {to}"));
            }
        }
    }
    Ok(found)
}

fn folder(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(from: &str, to: &str) -> String {
        format!(
            r#"{{"workspace_root": "/w", "packages": [{{
                "manifest_path": "/w/{from}/Cargo.toml",
                "dependencies": [{{"path": null}}, {{"path": "/w/{to}"}}]
            }}]}}"#
        )
    }

    #[test]
    fn each_allowed_arrow_passes() {
        for (from, allowed) in ALLOWED {
            for to in *allowed {
                assert!(
                    forbidden(&metadata(from, to)).unwrap().is_empty(),
                    "{from} -> {to}"
                );
            }
        }
    }

    #[test]
    fn an_arrow_across_the_trust_boundary_is_named() {
        for (from, to) in [
            ("agent", "shim"),
            ("shim", "agent"),
            ("agent", "policy/cli"),
            ("agent", "policy/appraisal"),
            ("agent/evidence", "policy/appraisal"),
        ] {
            let found = forbidden(&metadata(from, to)).unwrap();
            assert_eq!(
                found.into_iter().collect::<Vec<_>>(),
                [format!("{from} -> {to}")]
            );
        }
    }

    #[test]
    fn a_product_crate_cannot_depend_on_tests_but_tests_on_anything() {
        assert!(
            !forbidden(&metadata("agent", "tests/harness"))
                .unwrap()
                .is_empty()
        );
        assert!(
            forbidden(&metadata("tests/e2e", "agent"))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_named() {
        assert!(
            !forbidden(&metadata("agent/new", "agent/protocol"))
                .unwrap()
                .is_empty()
        );
    }
}
