//! The agent's program. It is several in one, because it is the only program in the
//! guest: the kernel's `/init`, the agent proper, the helper that calls the container
//! library, and the pause container's process.

use std::{env, process::ExitCode};

use agent_containers::{helper, job::HELPER_ARGUMENT, pause};
use anyhow::Context;

use crate::{
    boot::{self, BOOTED_ARGUMENT},
    log,
    run::{self, Role},
};

/// Runs what the arguments say; the guest's first process runs the guest.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = env::args();
    let program = arguments.next().unwrap_or_default();
    let argument = arguments.next().unwrap_or_default();
    if program == "/pause" {
        return pause::run();
    }
    let first = std::process::id() == 1;
    match argument.as_str() {
        HELPER_ARGUMENT => helper::run(),
        BOOTED_ARGUMENT if first => init(run::run(Role::Init).context("agent failed")),
        _ if first => init(Err(boot::boot()).context("guest cannot start")),
        _ => match run::run(Role::Process).context("agent failed") {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::say(&format!("kata-agent: {error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}

/// The first process must not end: the guest ends with it, in good order or not.
fn init(result: anyhow::Result<()>) -> ExitCode {
    if let Err(error) = &result {
        log::say(&format!("kata-agent: {error:#}"));
    }
    run::end_guest();
    ExitCode::FAILURE
}
