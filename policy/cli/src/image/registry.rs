//! The options that say how registries are reached, the same ones that a guest is configured with.

use std::{fs, io, path::PathBuf, time::Duration};

use agent_image::Config;
use agent_image_registry::{Credentials, CredentialsError, RegistriesError, Registry};
use clap::Args;

/// How registries are reached, and how long they may take.
#[derive(Debug, Args)]
pub(crate) struct RegistryOptions {
    #[command(flatten)]
    access: Access,
    /// Longest time for the whole of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Longest silence of a registry, before it answers or in the middle of something.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    silence: u64,
}

/// How registries are reached.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Credentials file, as `docker login` and `skopeo login` write it.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// registries.conf, the part of it that the guest knows: mirrors, locations, blocked, insecure.
    #[arg(long, value_name = "FILE")]
    registries_conf: Option<PathBuf>,
    /// Root certificates in PEM, trusted besides the system's; may be given several times.
    #[arg(long = "extra-root", value_name = "FILE")]
    extra_roots: Vec<PathBuf>,
    /// Registry, or part of its names, that is spoken to without TLS; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    insecure: Vec<String>,
    /// Proxy for registries with TLS.
    #[arg(long, value_name = "URL")]
    https_proxy: Option<String>,
    /// Proxy for registries without TLS.
    #[arg(long, value_name = "URL")]
    http_proxy: Option<String>,
    /// Hosts, domains and networks that are reached without proxy, separated by commas.
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,
}

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--authfile {}", path.display())]
    Credentials {
        path: PathBuf,
        #[source]
        source: CredentialsError,
    },
    #[error("--registries-conf {}", path.display())]
    Registries {
        path: PathBuf,
        #[source]
        source: RegistriesError,
    },
}

/// Reads a file that an option names.
pub(crate) fn read(path: &PathBuf) -> Result<Vec<u8>, OptionError> {
    fs::read(path).map_err(|source| OptionError::Read {
        path: path.clone(),
        source,
    })
}

impl RegistryOptions {
    /// The guest's configuration with these settings in it.
    pub(crate) fn config(&self) -> Result<Config, OptionError> {
        let mut config = self.access.config()?;
        config.pull_deadline = Duration::from_secs(self.timeout);
        config.silence = Duration::from_secs(self.silence);
        Ok(config)
    }
}

impl Access {
    /// The guest's configuration with these settings in it.
    pub(crate) fn config(&self) -> Result<Config, OptionError> {
        let mut config = Config::default();
        if let Some(path) = &self.authfile {
            config.credentials = Credentials::parse(&read(path)?).map_err(|source| {
                let path = path.clone();
                OptionError::Credentials { path, source }
            })?;
        }
        if let Some(path) = &self.registries_conf {
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            config.registries = Registry::parse_conf(&text).map_err(|source| {
                let path = path.clone();
                OptionError::Registries { path, source }
            })?;
        }
        config
            .registries
            .extend(self.insecure.iter().map(|prefix| Registry {
                prefix: prefix.clone(),
                insecure: true,
                ..Registry::default()
            }));
        for path in &self.extra_roots {
            config.extra_root_certificates.push(read(path)?);
        }
        config.https_proxy.clone_from(&self.https_proxy);
        config.http_proxy.clone_from(&self.http_proxy);
        config.no_proxy.clone_from(&self.no_proxy);
        Ok(config)
    }
}
