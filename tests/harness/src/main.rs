//! `bed`: a node in namespaces of its own, to demonstrate and to test on.
//!
//! Data goes to standard output, messages to standard error. Exit codes: 0 done,
//! 1 failed, 2 wrong usage, and that of the program for `enter`.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tests_harness::{
    BenchOptions, DemoOptions, KeeperOptions, SoakOptions, bench, command_inside, demo,
    first_process, join, keep, soak,
};

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
    /// Run a pod from its YAML on a node made for it.
    Demo {
        /// What hack/build made.
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
        /// The pod to run when none is named.
        #[arg(long, value_name = "FILE", hide = true)]
        hello: PathBuf,
        /// Leave the node up, and print how to talk to it.
        #[arg(long)]
        keep: bool,
        /// The pod to run.
        pod: Option<PathBuf>,
    },
    /// Measure what a pod costs, against runc on the same node.
    Bench {
        /// What hack/build made.
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
        /// Write the measurements there, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Pods of each kind.
        #[arg(long, value_name = "N", default_value_t = 5)]
        repeat: usize,
    },
    /// Run and remove many pods, and fail if anything of the node grows.
    Soak {
        /// What hack/build made.
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
        /// Decides which parts of pods are killed.
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        seed: u64,
        /// How many pods.
        #[arg(value_name = "N", default_value_t = 100)]
        pods: usize,
    },
    /// Run a program on a node that was kept.
    Enter {
        /// PID of the node's first process.
        first: u32,
        #[arg(last = true, required = true)]
        program: Vec<String>,
    },
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
        Action::Demo {
            prefix,
            hello,
            keep,
            pod,
        } => {
            let options = DemoOptions {
                prefix,
                plays_node: pod.is_none(),
                pod: pod.unwrap_or(hello),
                keep,
            };
            return demo(&options).map(ExitCode::from);
        }
        Action::Bench {
            prefix,
            json,
            repeat,
        } => bench(&BenchOptions {
            prefix,
            json,
            repeat,
        })?,
        Action::Soak { prefix, seed, pods } => soak(&SoakOptions { prefix, pods, seed })?,
        Action::Enter { first, program } => {
            let (name, arguments) = program.split_first().context("no program is named")?;
            let error = command_inside(first, name)?.args(arguments).exec();
            return Err(error).context("running nsenter");
        }
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
