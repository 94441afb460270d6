//! `kata-cc-node`: what an administrator asks of a node before pods do.
//!
//! `check` looks at the node as a launch would, with the same functions, and says which
//! protection guests can have and what is missing for it. It changes nothing. What it finds is
//! read in [`facts`]; what follows from it is decided in [`mod@decide`], without looking again.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | guests with the protection that was asked for can start |
//! | 1 | something is missing |
//! | 2 | wrong usage |
#![forbid(unsafe_code)]

mod decide;
mod facts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use decide::{Wanted, decide};
use facts::{Facts, Places};

/// Looks at a node before pods run on it.
#[derive(Parser)]
#[command(name = "kata-cc-node", version)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Say which TEE this node has and what is missing
    ///
    /// Exit codes: 0 guests can start, 1 something is missing, 2 wrong usage.
    Check {
        #[command(flatten)]
        places: Places,
        /// Protection that guests must have
        #[arg(long, value_enum, default_value = "best")]
        tee: Wanted,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Commands::Check { places, tee, json } = Cli::parse().command;
    let decision = decide(&Facts::probe(&places), tee);
    if json {
        let text = serde_json::to_string_pretty(&decision);
        println!("{}", text.expect("texts and flags are JSON"));
    } else {
        print!("{decision}");
    }
    if decision.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
