//! `kata-cc run --policy`: the policy that a pod runs under.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use agent_protocol::initdata::Algorithm;
use clap::Args;

use super::{
    generate::{GenerateError, of_the_pod},
    initdata::{Made, MakeError, make, make_of_rego},
    load::{Found, LoadError, Policy, one},
};
use crate::image::registry::Access;

/// The policy, and how registries are reached to make it.
#[derive(Debug, Args)]
pub(crate) struct RunPolicy {
    /// Policy of the pod: `auto` makes the strict one of the files, as `kata-cc policy gen` would;
    /// `none` runs it without; or a file with a policy or with initdata that has one. Without the
    /// option the pod's own annotations count.
    #[arg(long, value_name = "auto|none|FILE", value_parser = Choice::parse)]
    policy: Option<Choice>,
    #[command(flatten, next_help_heading = "Registries, for --policy auto")]
    access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Auto,
    None,
    File(PathBuf),
}

/// Why there is no policy for the pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunPolicyError {
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Make(#[from] MakeError),
}

impl Choice {
    /// A file of one of the names is `./auto`.
    #[expect(clippy::unnecessary_wraps, reason = "what clap calls")]
    fn parse(text: &str) -> Result<Self, std::convert::Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            file => Self::File(file.into()),
        })
    }
}

impl RunPolicy {
    /// What [`policy_run`] puts into the pod of these files.
    pub(crate) fn of<'a>(
        &self,
        files: impl Iterator<Item = &'a Path>,
    ) -> Result<policy_run::Policy, RunPolicyError> {
        let made = match &self.policy {
            None => return Ok(policy_run::Policy::OfThePod),
            Some(Choice::None) => return Ok(policy_run::Policy::None),
            Some(Choice::Auto) => of_the_pod(files, &self.access)?,
            Some(Choice::File(path)) => of_file(path)?,
        };
        let annotation = made.annotation;
        Ok(policy_run::Policy::Initdata { annotation })
    }
}

/// The initdata of the one policy in a file.
fn of_file(path: &Path) -> Result<Made, RunPolicyError> {
    let Found {
        policy, initdata, ..
    } = one(path)?;
    Ok(match (initdata, policy) {
        (Some(initdata), _) => Made::of(initdata)?,
        (None, Policy::Document(document)) => {
            make(&document, &(Algorithm::Sha256, BTreeMap::new()))?
        }
        (None, Policy::Rego(text)) => make_of_rego(&text)?,
    })
}
