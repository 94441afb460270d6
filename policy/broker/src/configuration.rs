//! What the owner writes: `broker.toml` in the broker's directory, and the files that it names.
//!
//! Unknown keys are errors. What is left out refuses: without initdata or policy that is bound,
//! without reference values, nothing is released.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use agent_evidence::{HostData, LaunchMeasurement};
use serde::Deserialize;

/// Name of the file.
pub const FILE: &str = "broker.toml";

/// `broker.toml`. Files are named from the directory that it is in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What is accepted of guest and platform, as `kata-cc verify --references` reads it.
    pub references: PathBuf,
    /// Initdata documents that a guest may be bound to.
    #[serde(default)]
    pub initdata: Vec<PathBuf>,
    /// HOST_DATA that a guest may be bound to, beside those of `initdata`.
    #[serde(default)]
    pub host_data: Vec<HostData>,
    /// Trust anchors instead of AMD's.
    pub roots: Option<PathBuf>,
    /// A directory of certificates and lists, as `kata-cc verify --store` keeps them.
    pub certificates: Option<PathBuf>,
    /// Whether a guest must send its measurement log.
    #[serde(default)]
    pub measurement_log: LogRule,
    /// Rego for what evidence is worth.
    pub attestation_policy: Option<PathBuf>,
    /// Rego for who gets what.
    pub resource_policy: Option<PathBuf>,
    /// Reference values by name, for Rego that asks for them.
    pub reference_values: Option<PathBuf>,
    /// Releases below which nothing is released.
    #[serde(default)]
    pub minimum: Minimum,
    /// Version of each launch measurement, for `minimum.guest_image`.
    #[serde(default)]
    pub guest_images: BTreeMap<String, u64>,
    /// Resources for which the log must be there and name nothing but a workload.
    #[serde(default)]
    pub require: Vec<Requirement>,
}

/// Whether a guest must send its measurement log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogRule {
    /// It must, and the log must say that the policy is bound.
    #[default]
    Required,
    /// It may leave it out, as guests of others do.
    Optional,
}

/// Releases below which nothing is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minimum {
    /// The version in the policy document, as the log tells it.
    pub policy: Option<u64>,
    /// The version that `guest_images` gives a measurement.
    pub guest_image: Option<u64>,
}

/// What some resources need beside affirming evidence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// `repository/type/tag`; `*` stands for any segment.
    pub resource: String,
    /// What may have run, as `kata-cc verify --workload` reads it.
    pub workload: PathBuf,
    /// How old the attestation may be.
    #[serde(default = "one_minute")]
    pub log_max_age_seconds: u32,
}

const fn one_minute() -> u32 {
    60
}

impl Configuration {
    /// The version of a measurement, if the owner gave it one.
    pub fn image_version(&self, measurement: &LaunchMeasurement) -> Option<u64> {
        self.guest_images.get(&measurement.to_string()).copied()
    }
}
