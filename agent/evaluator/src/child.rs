//! The child: gives up what it does not need, then answers.

use std::{fs, io, process::ExitCode};

use policy_engine::rego::worker;
use rustix::process::{Resource, Rlimit, setrlimit};

/// All memory that it may map: program, text, tree, and what an evaluation takes.
const MEMORY_BYTES: u64 = 512 << 20;
/// Its socket, twice, and nowhere.
const FILES: u64 = 4;

/// Answers questions on standard input and output until they end.
#[must_use]
pub fn run() -> ExitCode {
    match confine().and_then(|()| worker::serve(io::stdin().lock(), io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn confine() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // If the guest runs out of memory, this process is the one to lose. It can always be lost.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, limit) in [
        (Resource::As, MEMORY_BYTES),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}
