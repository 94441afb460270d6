//! What is said where there is no verdict: on standard error, and with `--json` on standard
//! output too, in the shape of a verdict that accepts nothing.

use std::ffi::OsStr;

use anyhow::Error;
use policy_appraisal::EvidenceError;
use serde::Serialize;

use super::{guard::Guard, show::escaped};

/// Exit code for wrong usage.
const USAGE: u8 = 2;
/// Exit code for what cannot be judged.
const UNREADABLE: u8 = 3;
/// Exit code for evidence that is none.
const MALFORMED: u8 = 4;

#[derive(Serialize)]
struct NoVerdict<'a> {
    accepted: bool,
    checks: [(); 0],
    kernel_guard: Guard,
    log: [(); 0],
    error: Failure<'a>,
}

#[derive(Serialize)]
struct Failure<'a> {
    exit_code: u8,
    message: &'a str,
}

/// Says why the inputs cannot be judged; gives the exit code. The message may quote the
/// evidence, and so is escaped.
pub(super) fn of_inputs(error: &Error, as_json: bool) -> u8 {
    let code = match error.downcast_ref::<EvidenceError>() {
        Some(_) => MALFORMED,
        None => UNREADABLE,
    };
    let message = crate::sentence(error);
    eprintln!("kata-cc: {}", escaped(&message));
    if as_json {
        print_no_verdict(code, &message);
    }
    code
}

/// Prints what clap says of this subcommand's arguments, as JSON too if they ask for it;
/// gives the exit code.
pub(crate) fn of_usage<'a>(
    error: &clap::Error,
    mut arguments: impl Iterator<Item = &'a OsStr>,
) -> u8 {
    if !error.use_stderr() {
        error.exit();
    }
    // Nothing better can be done where standard error is gone.
    let _ = error.print();
    if arguments.next() == Some(OsStr::new("verify")) && arguments.any(|word| word == "--json") {
        print_no_verdict(USAGE, error.to_string().trim_end());
    }
    USAGE
}

fn print_no_verdict(exit_code: u8, message: &str) {
    print_json(&NoVerdict {
        accepted: false,
        checks: [],
        kernel_guard: Guard::Unknown,
        log: [],
        error: Failure { exit_code, message },
    });
}

pub(super) fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("text, numbers and lists are json");
    println!("{text}");
}
