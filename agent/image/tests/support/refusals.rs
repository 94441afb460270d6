//! Pulls that must fail, and what their sentence must say.

use std::{fs, path::Path};

use super::{Registry, Tar, directory};

pub fn archive() -> Vec<u8> {
    Tar::new()
        .dir("d")
        .entry("d/f", b'0', 0o644, "", &vec![9; 300_000])
        .end()
}

/// Pulls `x` and returns the whole sentence of the failure.
pub fn refusal(registry: &Registry) -> String {
    let directory = directory();
    let store = directory.path().join("store");
    let puller = registry.puller(&store);
    let error = puller.pull(&registry.reference("x")).unwrap_err();
    assert_empty(&store);
    let sentence = error.sentence();
    assert!(
        sentence.starts_with(&format!(
            "cannot pull 127.0.0.1:{}/x:latest: ",
            registry.port
        )),
        "{sentence}"
    );
    assert!(!sentence.contains('\n'), "{sentence}");
    sentence
}

pub fn assert_empty(store: &Path) {
    for part in ["layers", "staging", "containers"] {
        assert_eq!(fs::read_dir(store.join(part)).unwrap().count(), 0, "{part}");
    }
}

pub fn assert_names(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
    }
}
