//! Every JSON and TOML document is read with the one limit of depth.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Calls that read a document of any depth.
const UNLIMITED: [&str; 6] = [
    "serde_json::from_slice",
    "serde_json::from_str",
    "serde_json::from_reader",
    "Deserializer::from_slice",
    "toml::from_str",
    "parse::<DocumentMut>",
];

/// Where they stand all the same, after the document was measured.
const MEASURED: [&str; 4] = [
    "agent/documents/src/json.rs",
    "agent/documents/src/toml.rs",
    "policy/cli/src/verify/inputs.rs",
    // What was parsed before, and a part of our own after it.
    "shim/node/src/containerd/edit.rs",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["tests", "benches", "target"].contains(&name.as_str()) {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// A file without the tests at its end.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

fn unlimited(text: &str) -> Vec<&'static str> {
    let text = shipped(text);
    let calls = UNLIMITED.into_iter();
    calls.filter(|call| text.contains(call)).collect()
}

#[test]
fn every_document_is_read_with_the_limit_of_depth() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let mut files = Vec::new();
    for party in ["agent", "guest-image", "policy", "shim"] {
        sources(&root.join(party), &mut files);
    }
    assert!(files.len() > 200, "{}", files.len());
    let mut found = Vec::new();
    for file in files {
        let calls = unlimited(&fs::read_to_string(&file).unwrap());
        let name = file
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        if !calls.is_empty() && !MEASURED.contains(&name.as_str()) {
            found.push((name, calls));
        }
    }
    assert!(
        found.is_empty(),
        "read with agent_documents::parse_json or parse_toml: {found:#?}"
    );
}

#[test]
fn a_call_is_found_and_one_in_a_test_is_not() {
    let call = "let a: A = serde_json::from_slice(bytes)?;\n";
    assert_eq!(unlimited(call), ["serde_json::from_slice"]);
    let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{call}}}");
    assert!(unlimited(&tested).is_empty());
}
