//! `kata-cc-image`: builds, shows, measures and verifies guest images.
//!
//! Results go to stdout, messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 3 the image is not what its manifest or its inputs say, or a digest has no explanation.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod commands;

/// Builds, shows, measures and verifies guest images: kernel, initrd with the agent, command line.
#[derive(Parser)]
#[command(name = "kata-cc-image", version)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Build an image from a kernel and an agent
    Build(commands::BuildArgs),
    /// Print what an image is, after comparing its files with their digests
    Show(commands::ShowArgs),
    /// Build an image again from its inputs and compare
    Verify(commands::VerifyArgs),
    /// Print the launch digests that a genuine VM reports, as JSON
    Measure(commands::measure::MeasureArgs),
    /// Write an IGVM file that starts an image, and print its launch digest
    Igvm(Box<commands::igvm::IgvmArgs>),
    /// Build our own kernel, unless it is built already, and print its directory
    Kernel(commands::own_kernel::KernelArgs),
    /// Print the configuration that our kernel has with a source, without compiling it
    KernelConfig(commands::own_kernel::ConfigArgs),
    /// Download the package of Debian's cloud kernel and print its path
    FetchKernel(commands::FetchArgs),
}

/// How a command ended when nothing failed.
pub(crate) enum Outcome {
    Done,
    Different,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Commands::Build(arguments) => commands::build(&arguments),
        Commands::Show(arguments) => commands::show(&arguments),
        Commands::Verify(arguments) => commands::verify(&arguments),
        Commands::Measure(arguments) => commands::measure::run(&arguments),
        Commands::Igvm(arguments) => commands::igvm::run(&arguments),
        Commands::Kernel(arguments) => commands::own_kernel::build(&arguments),
        Commands::KernelConfig(arguments) => commands::own_kernel::configure(&arguments),
        Commands::FetchKernel(arguments) => commands::fetch(&arguments),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Different) => ExitCode::from(3),
        Err(error) => {
            eprintln!("kata-cc-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}
