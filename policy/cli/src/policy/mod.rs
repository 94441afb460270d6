//! `kata-cc policy`: makes the policy of a pod, and says in plain words what one allows.
//!
//! Runs on a machine of the owner's. What it reads is the owner's own, or comes from registries,
//! whose digests are checked; what it writes travels through the host, which can read it, so that
//! no secret is in it.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done; for `diff`: the second allows nothing more |
//! | 1 | failed, or `lint` found something |
//! | 2 | wrong usage; for `diff`: the second allows something more; for `check`: something is denied |

mod diff;
mod explain;
mod generate;
mod initdata;
mod lint;
mod load;
mod of_run;
mod show;

use clap::Subcommand;
pub(crate) use of_run::RunPolicy;

/// For `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; diff: the second allows nothing more
  1  failed; lint: there are findings
  2  wrong usage; diff: the second allows something more";

/// Make the policy of a pod, and say in plain words what one allows.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum Command {
    Gen(Box<generate::Options>),
    Show(show::Options),
    Explain(explain::Options),
    Diff(diff::Options),
    Lint(lint::Options),
    Digest(show::DigestOptions),
}

/// Why one of the commands failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error(transparent)]
    Generate(#[from] generate::GenerateError),
    #[error(transparent)]
    Load(#[from] load::LoadError),
}

/// Runs one of the commands; answers with the exit code.
pub(crate) fn run(command: &Command) -> Result<u8, PolicyError> {
    // Registries are waited for, and bytes crunched, on this thread.
    tokio::task::block_in_place(|| match command {
        Command::Gen(options) => Ok(generate::run(options)?),
        Command::Show(options) => Ok(show::run(options)?),
        Command::Explain(options) => Ok(explain::run(options)?),
        Command::Diff(options) => Ok(diff::run(options)?),
        Command::Lint(options) => Ok(lint::run(options)?),
        Command::Digest(options) => Ok(show::digest(options)?),
    })
}
