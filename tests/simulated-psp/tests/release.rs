//! The release agent lacks what only tests and debug images have: it cannot ask a simulated
//! processor, and it cannot hand out the causes of errors that its log holds back.
//!
//! The agents that can are built here and show that the words would be found.

#![expect(clippy::unwrap_used, reason = "this is all test code")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// From `agent_evidence::tee::simulated`: what begins a message, and where the port is looked for.
const SIMULATED_WORDS: [&str; 2] = ["kata-cc sim-psp1", "/sys/class/virtio-ports"];
/// From `agent::log::causes`: what begins each line by which causes are handed out.
const DEBUG_WORDS: [&str; 1] = ["kata-agent-debug cause: "];

fn holds(program: &Path, word: &str) -> bool {
    let content = fs::read(program).unwrap();
    let mut windows = content.windows(word.len());
    windows.any(|window| window == word.as_bytes())
}

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_simulated-psp")).with_file_name(name)
}

/// Holds the words of a program that is built with these features against the release's.
fn only_in(name: &str, features: &str, words: &[&str]) {
    build("kata-agent", "");
    build(name, features);
    for word in words {
        assert!(holds(&beside(name), word), "{word}");
        assert!(!holds(&beside("kata-agent"), word), "{word}");
    }
}

fn build(name: &str, features: &str) {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--release"])
        .arg("--workspace")
        .arg(format!("--features={features}"))
        .arg(format!("--bin={name}"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
}

#[test]
fn the_release_agent_holds_nothing_of_the_simulated_processor() {
    only_in(
        "kata-agent-simulated",
        "agent/simulated-tee,tests-simulated-psp/guest",
        &SIMULATED_WORDS,
    );
}

#[test]
fn the_release_agent_hands_out_no_causes() {
    only_in("kata-agent-debug", "agent/debug-log", &DEBUG_WORDS);
}
