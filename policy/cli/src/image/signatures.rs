//! The options that say which images are accepted, as a guest is configured with.

use std::path::PathBuf;

use agent_image::Config;
use agent_image_signatures::{Lookaside, LookasideError, PolicyError, SignaturePolicy};
use clap::Args;

use crate::image::registry::{OptionError, read};

/// Which images are accepted.
#[derive(Debug, Args)]
pub(crate) struct SignatureOptions {
    /// policy.json of containers/image; without it, every image is accepted.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the simple signatures lie that --policy demands: YAML as in registries.d.
    #[arg(long, value_name = "FILE")]
    lookaside: Option<PathBuf>,
}

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignatureOptionError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(
        "--lookaside {} only says where signatures lie, and nothing demands any: give the policy \
         that does, with --policy FILE",
        .0.display()
    )]
    NoPolicy(PathBuf),
    #[error("--policy {}", path.display())]
    Policy {
        path: PathBuf,
        #[source]
        source: PolicyError,
    },
    #[error("--lookaside {}", path.display())]
    Lookaside {
        path: PathBuf,
        #[source]
        source: LookasideError,
    },
}

impl SignatureOptions {
    /// Puts them into the configuration of a pull.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), SignatureOptionError> {
        if let Some(path) = &self.policy {
            let policy = SignaturePolicy::parse(&read(path)?);
            config.signature_policy = Some(policy.map_err(|source| {
                let path = path.clone();
                SignatureOptionError::Policy { path, source }
            })?);
        }
        if let Some(path) = &self.lookaside {
            if self.policy.is_none() {
                return Err(SignatureOptionError::NoPolicy(path.clone()));
            }
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            config.lookaside = Some(Lookaside::parse(&text).map_err(|source| {
                let path = path.clone();
                SignatureOptionError::Lookaside { path, source }
            })?);
        }
        Ok(())
    }
}
