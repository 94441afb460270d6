//! What a pull costs, against other tools and against the work itself.
//!
//! One registry, one store in memory and one run for all: our pull, `skopeo copy`
//! with `umoci unpack`, `ctr images pull`, and each stage of the work measured alone
//! in its best known implementation. Repetitions are interleaved, so that a busy
//! moment of the machine hits all of them. Nothing is compared with another machine.
//!
//! Runs inside namespaces that `hack/bench-pull` makes: the registry, containerd and
//! the shaped link are in there and go with them. CPU seconds are user and system of
//! the puller (for `ctr`, of containerd too), never the registry's.

mod bench;
mod images;
mod ours;
mod peers;
mod place;
mod process;
mod stages;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "bench-pull",
    about = "Measures pulls; start it with hack/bench-pull"
)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Measure everything.
    Run(RunOptions),
    /// Fetch the peers while there is a network.
    #[command(hide = true)]
    Fetch,
    /// Make one image's layers (started by the others).
    #[command(hide = true)]
    Make(images::MakeOptions),
    /// Pull one image and say what it took (started by the others).
    #[command(hide = true)]
    Pull(ours::PullOptions),
    /// Measure the stages of one layer (started by the others).
    #[command(hide = true)]
    Stages(stages::StageOptions),
}

/// What to measure.
#[derive(Debug, Args)]
struct RunOptions {
    /// Write the measurements there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Repetitions; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// A sixteenth of the bytes and a tenth of the files.
    #[arg(long)]
    quick: bool,
    /// Only images whose names contain this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// The shaped link, in Mbit/s.
    #[arg(long, value_name = "MBIT", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    link: u32,
}

fn main() -> ExitCode {
    let result: Result<()> = match Cli::parse().action {
        Action::Run(options) => bench::run(&options),
        Action::Fetch => {
            place::Peers::find();
            Ok(())
        }
        Action::Make(options) => images::make(&options),
        Action::Pull(options) => ours::pull(&options),
        Action::Stages(options) => stages::measure(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-pull: {error:#}");
            ExitCode::FAILURE
        }
    }
}
