//! The release agent cannot ask a simulated processor: it holds no word of the way there.
//!
//! The simulated agent is built here, as the bed builds it, and shows that the words would be
//! found. Says what is missing and passes when the release agent is not built.

#![expect(clippy::unwrap_used, reason = "this is all test code")]

use std::{fs, path::Path, process::Command};

/// From `agent_evidence::tee::simulated`: what begins a message, and where the port is looked for.
const WORDS: [&str; 2] = ["kata-cc sim-psp1", "/sys/class/virtio-ports"];

fn holds(program: &Path, word: &str) -> bool {
    let content = fs::read(program).unwrap();
    let mut windows = content.windows(word.len());
    windows.any(|window| window == word.as_bytes())
}

#[test]
fn the_release_agent_holds_nothing_of_the_simulated_processor() {
    let beside = |name| Path::new(env!("CARGO_BIN_EXE_simulated-psp")).with_file_name(name);
    let release = beside("kata-agent");
    if !release.exists() {
        eprintln!("skipped: no {}; run hack/build", release.display());
        return;
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--release"])
        .arg("--workspace")
        .arg("--features=agent/simulated-tee,tests-simulated-psp/guest")
        .arg("--bin=kata-agent-simulated")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    for word in WORDS {
        assert!(holds(&beside("kata-agent-simulated"), word), "{word}");
        assert!(!holds(&release, word), "{word}");
    }
}
