//! What the guest image's kernel command line tells the agent (Kata agent
//! protocol, section 12).
//!
//! The command line is measured, so its author is trusted; a slip of the pen in it
//! must still not pass unnoticed. Keys that Kata's agent knows and this one does
//! not need are passed over; each is reported once the log runs.

use std::time::Duration;

use thiserror::Error;
use tracing::Level;

const PREFIX: &str = "agent.";
const PIPE_BYTES_MAX: usize = 1 << 20;

/// How the agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Events less important than this are not logged.
    pub log_level: Level,
    /// Where requests arrive.
    pub server_address: String,
    /// How long an image pull may take.
    pub image_pull_timeout: Duration,
    /// Proxy for registries.
    pub https_proxy: Option<String>,
    /// Hosts reached without the proxy.
    pub no_proxy: Option<String>,
    /// Size of the pipes of workloads' streams; the kernel's default if `None`.
    pub container_pipe_size: Option<usize>,
    /// How long a container's first process waits for a host that reads none of its output.
    pub output_patience: Duration,
    /// Keys that were passed over.
    pub ignored: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: Level::INFO,
            server_address: format!("vsock://-1:{}", agent_protocol::limits::AGENT_PORT),
            image_pull_timeout: Duration::from_secs(1200),
            https_proxy: None,
            no_proxy: None,
            container_pipe_size: None,
            output_patience: Duration::from_secs(60),
            ignored: Vec::new(),
        }
    }
}

/// A key has a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("kernel command line: {key} cannot be {value:?}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    value: String,
}

impl Config {
    /// Reads a kernel command line.
    ///
    /// # Errors
    ///
    /// When a known key has an impossible value.
    pub fn parse(command_line: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for word in command_line.split_whitespace() {
            let Some(word) = word.strip_prefix(PREFIX) else {
                continue;
            };
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            config.set(key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        match key {
            "log" => self.log_level = level(value)?,
            "server_addr" => {
                if !["vsock://", "unix://"]
                    .iter()
                    .any(|scheme| value.starts_with(scheme))
                {
                    return Err(bad("agent.server_addr", value));
                }
                value.clone_into(&mut self.server_address);
            }
            "image_pull_timeout" => {
                self.image_pull_timeout = seconds("agent.image_pull_timeout", value)?;
            }
            "output_patience" => self.output_patience = seconds("agent.output_patience", value)?,
            "https_proxy" => self.https_proxy = text(value),
            "no_proxy" => self.no_proxy = text(value),
            "container_pipe_size" => {
                let bytes = value
                    .parse::<usize>()
                    .ok()
                    .filter(|bytes| *bytes <= PIPE_BYTES_MAX);
                let bytes = bytes.ok_or_else(|| bad("agent.container_pipe_size", value))?;
                self.container_pipe_size = (bytes != 0).then_some(bytes);
            }
            other => self.ignored.push(format!("{PREFIX}{other}")),
        }
        Ok(())
    }
}

fn seconds(key: &'static str, value: &str) -> Result<Duration, ConfigError> {
    let seconds = value.parse().ok();
    let seconds = seconds.filter(|seconds| (1..=86_400).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| bad(key, value))
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn bad(key: &'static str, value: &str) -> ConfigError {
    ConfigError {
        key,
        value: value.to_owned(),
    }
}

fn level(value: &str) -> Result<Level, ConfigError> {
    match value {
        "fatal" | "panic" | "critical" | "error" => Ok(Level::ERROR),
        "warn" | "warning" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        "trace" => Ok(Level::TRACE),
        _ => Err(bad("agent.log", value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_read_and_others_reported() {
        let line = "console=ttyS0 agent.log=debug agent.image_pull_timeout=60 agent.devmode \
                    agent.container_pipe_size=65536 agent.https_proxy=http://p:1 agent.x=1 quiet";
        let config = Config::parse(line).unwrap();
        assert_eq!(config.log_level, Level::DEBUG);
        assert_eq!(config.image_pull_timeout, Duration::from_secs(60));
        assert_eq!(config.container_pipe_size, Some(65_536));
        assert_eq!(config.https_proxy.as_deref(), Some("http://p:1"));
        assert_eq!(config.ignored, ["agent.devmode", "agent.x"]);
        assert_eq!(Config::parse("quiet").unwrap(), Config::default());
    }

    #[test]
    fn impossible_values_are_errors() {
        for word in [
            "agent.log=loud",
            "agent.image_pull_timeout=0",
            "agent.image_pull_timeout=x",
            "agent.output_patience=0",
            "agent.container_pipe_size=-1",
            "agent.server_addr=tcp://0:1",
        ] {
            assert!(Config::parse(word).is_err(), "{word}");
        }
    }
}
