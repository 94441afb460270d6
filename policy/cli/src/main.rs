//! `kata-cc`, the command of a workload's owner.
//!
//! Runs outside the guest and is trusted by its user alone. [`policy_run`] starts a Pod
//! through containerd without Kubernetes; [`image`] pulls images as the guest does,
//! encrypts them and shows what is encrypted; [`initdata`] makes what a launch binds;
//! [`policy`] makes what a guest judges by and says what it allows,
//! [`measure`] computes what a genuine guest reports, [`verify`] judges what one did
//! report, and [`broker`] releases keys to those that it accepts.
//!
//! Output of the workload goes to standard output and standard error, messages of the
//! command to standard error, each as one sentence behind `kata-cc: `.
//!
//! Exit codes of `run`; `image` ends with 0 when it is done and 1 when it failed, the
//! other subcommands say theirs:
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | every container ended with 0 |
//! | 1 to 255 | exit code of the first container that failed for good |
//! | 2 | wrong usage |
//! | 124 | the pod ran longer than its `activeDeadlineSeconds` |
//! | 125 | the pod could not be run, or not be removed |
//! | 130, 143 | stopped by SIGINT or SIGTERM |

mod broker;
mod image;
mod initdata;
mod measure;
mod policy;
mod verify;

use std::{env, ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use policy_run::Outcome;

/// The table above, for `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0         every container ended with 0
  1 to 255  exit code of the first container that failed for good
  2         wrong usage
  124       the pod ran longer than its activeDeadlineSeconds
  125       the pod could not be run, or not be removed
  130, 143  stopped by SIGINT or SIGTERM";

/// Exit code for a pod past its deadline.
const TOO_LONG: u8 = 124;

/// Exit code for a command that failed.
const FAILED: u8 = 1;

/// Exit code of `run` for failures of our own.
const NOT_RUN: u8 = 125;

/// Shells add this to the number of a signal.
const SIGNAL_BASE: u8 = 128;

/// The command of a workload's owner.
#[derive(Parser)]
#[command(name = "kata-cc", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(subcommand)]
    Broker(Box<broker::Command>),
    #[command(after_help = EXIT_CODES)]
    Run(Box<Run>),
    #[command(subcommand)]
    Image(Box<image::Command>),
    Initdata(initdata::Options),
    Measure(Box<measure::Options>),
    #[command(subcommand)]
    Policy(Box<policy::Command>),
    Verify(Box<verify::Options>),
}

/// What [`policy_run`] takes, and the policy that it puts into the pod.
#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    options: policy_run::Options,
    #[command(flatten)]
    policy: policy::RunPolicy,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args = match Arguments::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let words: Vec<_> = env::args_os().skip(1).collect();
            return verify::of_usage(&error, words.iter().map(OsString::as_os_str)).into();
        }
    };
    let code = match args.command {
        Command::Broker(command) => {
            let ran = broker::run(&command).await;
            ran.unwrap_or_else(|error| complain(error, FAILED))
        }
        Command::Run(command) => run(&command).await,
        Command::Image(command) => match image::run(&command).await {
            Ok(()) => 0,
            Err(error) => {
                let code = error.exit_code();
                complain(error, code)
            }
        },
        Command::Initdata(options) => initdata::run(&options),
        Command::Measure(options) => {
            measure::run(&options).unwrap_or_else(|error| complain(error, FAILED))
        }
        Command::Policy(command) => {
            policy::run(&command).unwrap_or_else(|error| complain_in_lines(&error, FAILED))
        }
        Command::Verify(options) => verify::run(&options),
    };
    ExitCode::from(code)
}

async fn run(Run { options, policy }: &Run) -> u8 {
    // Registries are waited for on this thread.
    let policy = match tokio::task::block_in_place(|| policy.of(options.files())) {
        Ok(policy) => policy,
        Err(error) => return complain_in_lines(&error, NOT_RUN),
    };
    match policy_run::run(options, &policy).await {
        Ok(outcome) => report(&outcome),
        Err(error) => complain(error, NOT_RUN),
    }
}

fn complain(error: impl Into<anyhow::Error>, code: u8) -> u8 {
    eprintln!("kata-cc: {}", sentence(&error.into()));
    code
}

/// The mistakes of a file have a line each, which names the file.
fn complain_in_lines(error: &(dyn std::error::Error + 'static), code: u8) -> u8 {
    let text = agent_image_registry::sentence(error);
    let mut lines: Vec<&str> = text.lines().collect();
    let last = lines.pop().unwrap_or_default();
    for line in lines {
        eprintln!("{line}");
    }
    eprintln!("kata-cc: {last}");
    code
}

fn report(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded => 0,
        Outcome::Failed {
            container,
            code,
            why,
        } => {
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(" ({why})")
            };
            eprintln!("kata-cc: container {container} ended with {code}{why}");
            *code
        }
        Outcome::Stopped { signal } => SIGNAL_BASE + signal,
        Outcome::TooLong { seconds } => {
            eprintln!("kata-cc: the pod ran longer than its activeDeadlineSeconds, {seconds}");
            TOO_LONG
        }
    }
}

/// The error and its causes on one line; runtimes send messages of several.
fn sentence(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    whole.split_whitespace().collect::<Vec<_>>().join(" ")
}
