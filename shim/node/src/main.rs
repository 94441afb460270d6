//! `kata-cc-node`: what an administrator asks of a node before pods do.
//!
//! `check` looks at the node as a launch would, with the same functions, and says which
//! protection guests can have and what is missing for it. It changes nothing. What it finds is
//! read in [`facts`]; what follows from it is decided in [`mod@decide`], without looking again.
//!
//! [`mod@containerd`] puts the runtime into containerd's configuration and takes it out again.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | guests with the protection that was asked for can start; the configuration is as asked |
//! | 1 | something is missing; the configuration could not be changed |
//! | 2 | wrong usage |
#![forbid(unsafe_code)]

mod containerd;
mod decide;
mod facts;

use std::{error::Error as _, process::ExitCode};

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
    /// Put the runtime into containerd's configuration
    ///
    /// For containerd 2.x it writes the drop-in conf.d/kata-cc.toml beside the configuration
    /// and imports it; for 1.7 it adds to the configuration itself. What was there is kept in
    /// FILE.before-kata-cc. Restart containerd afterwards.
    ///
    /// Exit codes: 0 done, 1 the configuration could not be changed, 2 wrong usage.
    Containerd(containerd::Arguments),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Commands::Check { places, tee, json } => check(&places, tee, json),
        Commands::Containerd(arguments) => configure(arguments),
    }
}

fn check(places: &Places, tee: Wanted, json: bool) -> ExitCode {
    let decision = decide(&Facts::probe(places), tee);
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

fn configure(arguments: containerd::Arguments) -> ExitCode {
    match arguments.run() {
        Ok(changed) => {
            for path in changed {
                println!("{}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprint!("kata-cc-node: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {}", error.to_string().trim_end());
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}
