//! `simulated-psp`: a stand-in for QEMU that plays the secure processor. See the library.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use policy_appraisal::snp::{Product, SigningKey};
use tests_simulated_psp::{
    authority::Authority,
    kds::Kds,
    processor::{Guest, Model},
    run::{Settings, become_qemu},
    serve::serve,
};

/// Plays AMD's secure processor, for tests. It protects nothing.
#[derive(Parser)]
#[command(name = "simulated-psp", version)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Make the authority, unless it is there, and print the file of its roots
    Authority {
        /// Directory of keys and certificates
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
    },
    /// Measure the launch that the arguments describe, and become QEMU
    Qemu {
        /// Directory of keys and certificates
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        #[command(flatten)]
        model: ModelArgs,
        /// The QEMU to become
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/usr/bin/qemu-system-x86_64"
        )]
        qemu: PathBuf,
        /// QEMU's arguments for a SEV-SNP guest
        #[arg(last = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Serve the certificates as AMD's key server does, and print where
    Kds {
        /// Directory of keys and certificates
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        /// Address to listen on
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Sign reports for the guest at standard input
    Serve {
        /// Directory of keys and certificates
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        #[command(flatten)]
        model: ModelArgs,
        /// Process to end with
        #[arg(long, value_name = "PID")]
        parent: i32,
        /// What was launched, as JSON
        #[arg(long, value_name = "JSON")]
        guest: String,
    },
}

/// Which processor is played.
#[derive(Args)]
struct ModelArgs {
    /// Product: Milan, Genoa or Turin
    #[arg(long, default_value = "Genoa")]
    product: Product,
    /// Key that signs
    #[arg(long, default_value = "vcek")]
    signing_key: Key,
    /// Version of the reports
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u8).range(2..=5))]
    report_version: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum Key {
    Vcek,
    Vlek,
}

impl ModelArgs {
    fn model(&self) -> Model {
        Model {
            product: self.product,
            signing_key: match self.signing_key {
                Key::Vcek => SigningKey::Vcek,
                Key::Vlek => SigningKey::Vlek,
            },
            report_version: self.report_version,
        }
    }

    /// The same as arguments.
    fn words(&self) -> Vec<String> {
        let key = match self.signing_key {
            Key::Vcek => "vcek",
            Key::Vlek => "vlek",
        };
        vec![
            format!("--product={}", self.product),
            format!("--signing-key={key}"),
            format!("--report-version={}", self.report_version),
        ]
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulated-psp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Commands) -> Result<()> {
    match command {
        Commands::Authority { authority } => {
            println!("{}", Authority::open(&authority)?.roots().display());
            Ok(())
        }
        Commands::Qemu {
            authority,
            model,
            qemu,
            arguments,
        } => {
            // Made here once, and not by the processor while the guest waits.
            Authority::open(&authority)?;
            let settings = Settings {
                authority,
                qemu,
                model: model.words(),
            };
            match become_qemu(&settings, &arguments)? {}
        }
        Commands::Kds { authority, listen } => {
            let server = Kds::start(Authority::open(&authority)?, listen)?;
            println!("{}", server.url());
            loop {
                std::thread::park();
            }
        }
        Commands::Serve {
            authority,
            model,
            parent,
            guest,
        } => {
            let guest: Guest = serde_json::from_str(&guest)?;
            serve(&Authority::open(&authority)?, model.model(), &guest, parent)
        }
    }
}
