//! The image's own configuration: how its author meant it to be run, and the
//! digests of its unpacked layers.
//!
//! Format: OCI image specification 1.1, `config.md`; Docker's older form differs
//! only in members nobody here reads.

use std::collections::BTreeMap;

use agent_documents::parse_json;
use serde::Deserialize;

use crate::{digest::Digest, document::Platform};

/// How an image asks to be run; every member may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageConfig {
    /// `user[:group]`, each a name or a number.
    pub user: String,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Words before the arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the whole command if there is no entry point.
    pub cmd: Vec<String>,
    /// Where the process starts.
    pub working_dir: String,
    /// Mount points that the image declares as volumes.
    pub volumes: Vec<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the process to stop, by name or number.
    pub stop_signal: Option<String>,
}

/// The configuration with what the pull itself needs.
#[derive(Debug)]
pub struct ConfigFile {
    /// What the image runs on.
    pub platform: Platform,
    /// How it asks to be run.
    pub config: ImageConfig,
    /// Digests of the unpacked layers, bottom first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawFile {
    os: String,
    architecture: String,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    config: RawConfig,
    rootfs: RawRootfs,
}

/// The only kind of root file system that the formats know.
#[derive(Deserialize)]
enum RootfsType {
    #[serde(rename = "layers")]
    Layers,
}

#[derive(Deserialize)]
struct RawRootfs {
    /// Some builders leave it out.
    #[serde(rename = "type")]
    _kind: Option<RootfsType>,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    user: String,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    working_dir: String,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "crate::json::unique_map_or_null")]
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

impl ConfigFile {
    /// Parses the configuration's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: RawFile = parse_json(bytes)?;
        let config = ImageConfig {
            user: raw.config.user,
            env: raw.config.env,
            entrypoint: raw.config.entrypoint,
            cmd: raw.config.cmd,
            working_dir: raw.config.working_dir,
            volumes: raw.config.volumes.into_keys().collect(),
            labels: raw.config.labels,
            stop_signal: raw.config.stop_signal,
        };
        let platform = Platform {
            os: raw.os,
            architecture: raw.architecture,
        };
        Ok(Self {
            platform,
            config,
            diff_ids: raw.rootfs.diff_ids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_member_is_read_and_null_is_empty() {
        let text = format!(
            r#"{{"os":"linux","architecture":"amd64","config":{{"User":"1:2","Env":["A=b"],"Entrypoint":["/e"],
            "Cmd":null,"WorkingDir":"/w","Volumes":{{"/v":{{}}}},"Labels":{{"l":"m"}},"StopSignal":"SIGINT",
            "Healthcheck":{{}}}},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}}}"#
        );
        let file = ConfigFile::parse(text.as_bytes()).unwrap();
        assert_eq!(file.diff_ids.len(), 1);
        let config = file.config;
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("1:2", "/w")
        );
        assert_eq!(
            (config.env, config.entrypoint, config.cmd),
            (vec!["A=b".into()], vec!["/e".into()], vec![])
        );
        assert_eq!(
            (config.volumes, config.stop_signal),
            (vec!["/v".into()], Some("SIGINT".into()))
        );
    }

    #[test]
    fn a_config_may_be_absent_but_not_given_twice() {
        let bare =
            r#"{"os":"linux","architecture":"amd64","config":null,"rootfs":{"diff_ids":null}}"#;
        assert_eq!(
            ConfigFile::parse(bare.as_bytes()).unwrap().config,
            ImageConfig::default()
        );
        let other = bare.replace("\"diff_ids\"", "\"type\":\"tree\",\"diff_ids\"");
        let error = ConfigFile::parse(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`tree`"), "{error}");
        let twice = bare.replace("\"config\":null", "\"config\":{},\"config\":{}");
        assert!(ConfigFile::parse(twice.as_bytes()).is_err());
    }
}
