//! How to pull: everything that the guest's configuration says about images.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use agent_image_registry::{AgentConfig, AgentError, Agents, Client, Credentials, Registry};
use agent_image_signatures::{Lookaside, SignaturePolicy};
use agent_image_unpacking::StoreError;
use agent_keys::{KeyProvider, ResourceUri};

/// Where Debian and its relatives, and the guest image, keep root certificates.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How to pull.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where layers are kept.
    pub store: PathBuf,
    /// PEM bundles of trusted root certificates; the system's if empty.
    pub root_certificates: Vec<Vec<u8>>,
    /// PEM bundles trusted besides those.
    pub extra_root_certificates: Vec<Vec<u8>>,
    /// Proxy for registries with TLS.
    pub https_proxy: Option<String>,
    /// Proxy for registries without.
    pub http_proxy: Option<String>,
    /// Comma-separated hosts, domains and networks that are reached directly.
    pub no_proxy: Option<String>,
    /// Who we are to which registry.
    pub credentials: Credentials,
    /// Where the keys of encrypted layers, and those that the signature policy names by
    /// `kbs:` URI, come from; without it both are refused.
    pub keys: Option<Arc<dyn KeyProvider>>,
    /// Which of `keys` are private keys, for layers whose key is wrapped as JWE.
    pub private_keys: Vec<ResourceUri>,
    /// Which images need which signatures; without it every image is accepted.
    pub signature_policy: Option<SignaturePolicy>,
    /// Where simple signatures are kept; without it a policy that demands one refuses.
    pub lookaside: Option<Lookaside>,
    /// Mirrors, other locations, blocked and insecure registries.
    pub registries: Vec<Registry>,
    /// The name servers.
    pub resolv_conf: PathBuf,
    /// Names known without a server.
    pub hosts: PathBuf,
    /// How long a whole pull may take.
    pub pull_deadline: Duration,
    /// How long a registry may be silent before it answers, or in the middle of something.
    pub silence: Duration,
    /// Largest unpacked layer, in bytes.
    pub layer_max_bytes: u64,
    /// Layers that are downloaded and unpacked at once; as many as the CPUs suggest if `None`.
    pub parallel_layers: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: PathBuf::from("/run/kata-containers/image"),
            root_certificates: Vec::new(),
            extra_root_certificates: Vec::new(),
            https_proxy: None,
            http_proxy: None,
            no_proxy: None,
            credentials: Credentials::default(),
            keys: None,
            private_keys: Vec::new(),
            signature_policy: None,
            lookaside: None,
            registries: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
            pull_deadline: Duration::from_secs(1200),
            silence: Duration::from_secs(30),
            layer_max_bytes: 64 << 30,
            parallel_layers: None,
        }
    }
}

impl Config {
    /// Connections as configured; talks to nobody yet.
    ///
    /// # Errors
    /// The root certificates, or the proxies.
    pub fn client(&self) -> Result<Client, ConfigError> {
        let agents = Agents::build(&AgentConfig {
            root_certificates: &root_certificates(self)?,
            https_proxy: self.https_proxy.as_deref(),
            http_proxy: self.http_proxy.as_deref(),
            no_proxy: self.no_proxy.as_deref(),
            silence: self.silence,
            hosts: self.hosts.clone(),
            resolv_conf: self.resolv_conf.clone(),
        })
        .map_err(ConfigError::Agent)?;
        Ok(Client::new(agents, self.credentials.clone()))
    }
}

/// Why a configuration gives no [`Puller`](crate::Puller).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The system's root certificates.
    #[error("cannot read the root certificates in `{path}`")]
    Roots {
        /// Where they should be.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Certificates or proxies.
    #[error("the registry connection cannot be set up")]
    Agent(#[source] AgentError),
    /// The store.
    #[error("the image store cannot be opened")]
    Store(#[source] StoreError),
}

/// All roots in PEM.
fn root_certificates(config: &Config) -> Result<Vec<Vec<u8>>, ConfigError> {
    let mut roots = config.root_certificates.clone();
    if roots.is_empty() {
        match fs::read(SYSTEM_ROOTS) {
            Ok(pem) => roots.push(pem),
            // A guest may do without if all its registries are insecure or have roots of their own.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = SYSTEM_ROOTS, "there are no system root certificates");
            }
            Err(source) => {
                return Err(ConfigError::Roots {
                    path: SYSTEM_ROOTS.into(),
                    source,
                });
            }
        }
    }
    roots.extend(config.extra_root_certificates.iter().cloned());
    Ok(roots)
}
