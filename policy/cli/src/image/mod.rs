//! `kata-cc image`: images as the guest sees them, on the owner's own machine.
//!
//! What decrypts, verifies and unpacks here is the library that the guest runs, so
//! that a pull that works here works there, and one that fails says why before any
//! VM exists. The machine is the owner's and trusted; images and registries are not.

mod encrypt;
mod inspect;
mod key_provider;
mod keys;
mod pull;
pub(crate) mod registry;
mod signatures;

use clap::Subcommand;
use signatures::SignatureOptionError;

/// Pull, encrypt and look at images.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum Command {
    Pull(pull::Options),
    Encrypt(encrypt::Options),
    Inspect(inspect::Options),
    KeyProvider(key_provider::Options),
}

/// The exit codes of these commands, for `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; standard error says why
  2  wrong usage";

/// Why one of the commands failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error(transparent)]
    Pull(#[from] pull::PullError),
    #[error(transparent)]
    Encrypt(#[from] encrypt::EncryptCommandError),
    #[error(transparent)]
    Inspect(#[from] inspect::InspectError),
    #[error(transparent)]
    KeyProvider(#[from] key_provider::ServeError),
}

impl ImageError {
    /// The exit code of the command.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Pull(pull::PullError::Signature(SignatureOptionError::NoPolicy(_))) => 2,
            _ => 1,
        }
    }
}

/// Runs one of the commands.
pub(crate) async fn run(command: &Command) -> Result<(), ImageError> {
    // All but the service block: bytes are crunched on plain threads.
    match command {
        Command::Pull(options) => tokio::task::block_in_place(|| pull::run(options))?,
        Command::Encrypt(options) => tokio::task::block_in_place(|| encrypt::run(options))?,
        Command::Inspect(options) => tokio::task::block_in_place(|| inspect::run(options))?,
        Command::KeyProvider(options) => key_provider::run(options).await?,
    }
    Ok(())
}
