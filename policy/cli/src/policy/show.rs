//! `kata-cc policy show` and `digest`: a policy as it is, and what a launch binds.

use std::{collections::BTreeMap, path::PathBuf};

use agent_protocol::initdata::{Algorithm, Initdata, PolicyText};
use clap::{Args, ValueEnum};

use super::{
    initdata::make,
    load::{Found, LoadError, Policy, load},
};

/// Size of the field of a TDX launch (`MRCONFIGID`), in bytes.
const TDX_BYTES: usize = 48;

/// Show a policy as it is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Policy document, initdata in any form, or YAML with a policy in its annotations; `-` is
    /// standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Print what a launch with this policy has in its evidence.
#[derive(Debug, Args)]
pub(crate) struct DigestOptions {
    /// Policy document, initdata in any form, or YAML with a policy in its annotations; `-` is
    /// standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whose evidence.
    #[arg(long, value_enum, default_value_t = Platform::Snp)]
    platform: Platform,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Platform {
    /// HOST_DATA of SEV-SNP: 32 bytes.
    Snp,
    /// MRCONFIGID of TDX: 48 bytes.
    Tdx,
    /// HOST_DATA on AKS: SHA-256 of the policy's text alone.
    Aks,
}

/// Prints each policy of the file.
pub(super) fn run(options: &Options) -> Result<u8, LoadError> {
    for Found { name, policy, .. } in load(&options.file)? {
        eprintln!("{name}:");
        match policy {
            Policy::Rego(text) => println!("{}", text.trim_end()),
            Policy::Document(document) => {
                // What was read can be written.
                let text = serde_json::to_value(&*document).unwrap_or_default();
                println!("{text:#}");
            }
        }
    }
    Ok(0)
}

/// Prints a digest for each policy of the file, and what a guest of this release makes of it.
pub(super) fn digest(options: &DigestOptions) -> Result<u8, LoadError> {
    for found in load(&options.file)? {
        match of(&found, options.platform) {
            Some(digest) => println!("{digest}  {}", found.name),
            None => {
                eprintln!(
                    "kata-cc: {}: a policy document is bound by its initdata, not by its own text: \
                     choose snp or tdx",
                    found.name
                );
                return Ok(1);
            }
        }
        if let Policy::Document(document) = &found.policy {
            let own = policy_engine::rules_digest_hex();
            let is_own = document.rules.contains(&own);
            let words = if is_own { "judge by it" } else { "refuse it" };
            eprintln!(
                "{}: guests of this release {words} (rules {own})",
                found.name
            );
        }
    }
    Ok(0)
}

fn of(found: &Found, platform: Platform) -> Option<String> {
    let initdata = || bound(found);
    match (platform, &found.policy) {
        (Platform::Aks, Policy::Rego(text)) => {
            let text = PolicyText::parse(text).ok()?;
            Some(hex::encode(text.host_data()))
        }
        (Platform::Aks, Policy::Document(_)) => None,
        (Platform::Snp, _) => Some(hex::encode(initdata()?.digest().host_data())),
        (Platform::Tdx, _) => {
            let field: [u8; TDX_BYTES] = initdata()?.digest().fitted();
            Some(hex::encode(field))
        }
    }
}

/// The initdata that has it, or the one that `gen` would make of it.
fn bound(found: &Found) -> Option<Initdata> {
    match (&found.initdata, &found.policy) {
        (Some(initdata), _) => Some(initdata.clone()),
        (None, Policy::Document(document)) => {
            let made = make(document, &(Algorithm::Sha256, BTreeMap::new())).ok()?;
            Some(made.initdata)
        }
        (None, Policy::Rego(_)) => None,
    }
}
