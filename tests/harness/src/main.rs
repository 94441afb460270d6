//! `bed`: a node in namespaces of its own, to demonstrate and to test on.
//!
//! Data goes to standard output, messages to standard error. Exit codes: 0 done,
//! 1 failed, 2 wrong usage, and that of the program for `enter`.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tests_harness::{KeeperOptions, first_process, join, keep};

#[derive(Debug, Parser)]
#[command(
    name = "bed",
    about = "A node in namespaces of its own: containerd, registry and network"
)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hold the namespaces of a bed (started by the others).
    #[command(hide = true)]
    Keeper {
        name: String,
        #[arg(long)]
        detached: bool,
    },
    /// Be the first process of a bed (started by the keeper).
    #[command(hide = true)]
    First { name: String },
    /// Run a program in the cgroups of the bed this process is in.
    #[command(hide = true)]
    Join {
        #[arg(last = true, required = true)]
        program: Vec<String>,
    },
}

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<ExitCode> {
    match action {
        Action::Keeper { name, detached } => keep(&KeeperOptions { name, detached })?,
        Action::First { name } => first_process(&name)?,
        Action::Join { program } => {
            join()?;
            let (name, arguments) = program.split_first().context("no program is named")?;
            let error = Command::new(name).args(arguments).exec();
            return Err(error).with_context(|| format!("running {name}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
