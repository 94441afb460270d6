//! The agent's program. It is several in one, because it is the only program in the
//! guest: the kernel's `/init`, the agent proper, the helper that calls the container
//! library, what evaluates a Kata-style policy, and the pause container's process.

use std::{env, process::ExitCode};

use agent_containers::{helper, job::HELPER_ARGUMENT, pause};
use agent_evaluator::EVALUATOR_ARGUMENT;

use crate::{
    boot::{self, BOOTED_ARGUMENT},
    log,
    run::{self, Role},
    told::{self, Told},
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
        EVALUATOR_ARGUMENT => agent_evaluator::run(),
        BOOTED_ARGUMENT if first => init(run::run(Role::Init).map_err(|error| told::run(&error))),
        _ if first => init(Err(told::boot(&boot::boot()))),
        _ => match run::run(Role::Process) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::say(&told::run(&error));
                ExitCode::FAILURE
            }
        },
    }
}

/// The first process must not end: the guest ends with it, in good order or not.
fn init(result: Result<(), Told>) -> ExitCode {
    if let Err(told) = &result {
        log::say(told);
    }
    run::end_guest();
    ExitCode::FAILURE
}
