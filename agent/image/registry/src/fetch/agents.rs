//! HTTP agents: one for direct connections and one for each proxy.

use std::{sync::Arc, time::Duration};

use rustls::crypto::aws_lc_rs::default_provider;
use ureq::{
    Agent, Proxy,
    config::Config,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
    unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, Transport},
};

use super::{origin::Origin, resolve::Files};

const CONNECT_MAX: Duration = Duration::from_secs(20);
const HEADERS_MAX_BYTES: usize = 64 * 1024;
const INPUT_BUFFER_BYTES: usize = 128 * 1024;
const IDLE_MAX: usize = 8;

/// What the agents are made from.
pub struct AgentConfig<'a> {
    /// PEM bundles of trusted root certificates.
    pub root_certificates: &'a [Vec<u8>],
    /// Proxy for registries with TLS.
    pub https_proxy: Option<&'a str>,
    /// Proxy for registries without.
    pub http_proxy: Option<&'a str>,
    /// Comma-separated hosts, domains and networks that are reached directly.
    pub no_proxy: Option<&'a str>,
    /// How long a registry may be silent before it answers, or in the middle of something.
    pub silence: Duration,
    /// Names known without a server.
    pub hosts: std::path::PathBuf,
    /// The name servers.
    pub resolv_conf: std::path::PathBuf,
}

/// Why no HTTP agent could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Not PEM, or PEM without a certificate.
    #[error("root certificate {0} is not a PEM certificate")]
    Certificate(usize),
    /// Not `[http[s]://][user:password@]host[:port]`.
    #[error("the {0} proxy is not a proxy's URL")]
    Proxy(&'static str),
}

/// The agents, and which hosts are reached without a proxy.
pub struct Agents {
    direct: Agent,
    https: Option<Agent>,
    http: Option<Agent>,
    direct_hosts: Vec<String>,
}

impl Agents {
    /// Sets up connections; talks to nobody yet.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn build(config: &AgentConfig<'_>) -> Result<Self, AgentError> {
        let roots = certificates(config.root_certificates)?;
        let proxied = |name, url: Option<&str>| match url.filter(|url| !url.is_empty()) {
            None => Ok(None),
            Some(url) => match Proxy::new(url) {
                Ok(proxy) => Ok(Some(agent(config, &roots, Some(proxy)))),
                Err(_) => Err(AgentError::Proxy(name)),
            },
        };
        let no_proxy = config
            .no_proxy
            .unwrap_or("")
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase());
        Ok(Self {
            direct: agent(config, &roots, None),
            https: proxied("https", config.https_proxy)?,
            http: proxied("http", config.http_proxy)?,
            direct_hosts: no_proxy.filter(|name| !name.is_empty()).collect(),
        })
    }

    /// The one without a proxy.
    #[must_use]
    pub fn direct(&self) -> &Agent {
        &self.direct
    }

    pub(crate) fn of(&self, origin: &Origin) -> &Agent {
        let proxied = if origin.tls { &self.https } else { &self.http };
        match proxied {
            Some(agent) if !self.direct_hosts.iter().any(|name| excludes(name, origin)) => agent,
            _ => &self.direct,
        }
    }
}

/// Whether an entry of `no_proxy` names this origin: `*`, a host, a domain (with
/// or without its dot, subdomains included), any of them with a port, or a network.
fn excludes(entry: &str, origin: &Origin) -> bool {
    let host = origin.host.trim_start_matches('[').trim_end_matches(']');
    if entry == "*" || entry == host {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return within(host, network, bits).unwrap_or(false);
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (entry, None),
    };
    if port.is_some_and(|port| port.parse() != Ok(origin.port)) {
        return false;
    }
    let name = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .trim_start_matches("*.")
        .trim_start_matches('.');
    host == name
        || host
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn within(host: &str, network: &str, bits: &str) -> Option<bool> {
    let number = |text: &str| match text.parse().ok()? {
        std::net::IpAddr::V4(address) => Some((32, u128::from(u32::from(address)))),
        std::net::IpAddr::V6(address) => Some((128, u128::from(address))),
    };
    let ((width, host), (network_width, network)) = (number(host)?, number(network)?);
    let bits: u32 = bits.parse().ok().filter(|bits| *bits <= width)?;
    let different = (host ^ network).checked_shr(width - bits).unwrap_or(0);
    Some(width == network_width && different == 0)
}

fn agent(config: &AgentConfig<'_>, roots: &RootCerts, proxy: Option<Proxy>) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(roots.clone())
        .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
        .build();
    let http = Config::builder()
        .tls_config(tls)
        .proxy(proxy)
        .user_agent(concat!("kata-cc/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_MAX.min(config.silence)))
        .timeout_resolve(Some(CONNECT_MAX.min(config.silence)))
        .timeout_recv_response(Some(config.silence))
        .timeout_per_read(Some(config.silence))
        .timeout_per_write(Some(config.silence))
        .max_response_header_size(HEADERS_MAX_BYTES)
        .input_buffer_size(INPUT_BUFFER_BYTES)
        .output_buffer_size(16 * 1024)
        .max_idle_connections(2 * IDLE_MAX)
        .max_idle_connections_per_host(IDLE_MAX)
        .build();
    let resolver = Files {
        hosts: config.hosts.clone(),
        resolv_conf: config.resolv_conf.clone(),
    };
    Agent::with_parts(http, OneTls(DefaultConnector::default()), resolver)
}

/// Connects as usual, with the TLS configuration of the agent for every request. They differ
/// in their time limits only, but `ureq` would parse the root certificates again for each.
#[derive(Debug)]
struct OneTls(DefaultConnector);

impl Connector for OneTls {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let details = ConnectionDetails {
            request_level: false,
            addrs: details.addrs.clone(),
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
            ..*details
        };
        self.0.connect(&details, chained)
    }
}

fn certificates(pems: &[Vec<u8>]) -> Result<RootCerts, AgentError> {
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for (index, pem) in pems.iter().enumerate() {
        let before = certificates.len();
        for item in parse_pem(pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                Ok(_) => {}
                Err(_) => return Err(AgentError::Certificate(index + 1)),
            }
        }
        if certificates.len() == before {
            return Err(AgentError::Certificate(index + 1));
        }
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_names_hosts_domains_ports_and_networks() {
        let origin = |authority| Origin::of_authority(authority, true).unwrap();
        for (entry, authority, excluded) in [
            ("*", "r.example", true),
            ("r.example", "r.example", true),
            ("example", "r.example", true),
            (".example", "r.example", true),
            ("*.example", "r.example", true),
            ("ample", "r.example", false),
            ("r.example:443", "r.example", true),
            ("r.example:444", "r.example", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/8", "r.example", false),
            ("::1", "[::1]:5000", true),
            ("fd00::/8", "[fd12::1]", true),
        ] {
            assert_eq!(
                excludes(entry, &origin(authority)),
                excluded,
                "{entry} {authority}"
            );
        }
    }

    #[test]
    fn certificates_must_be_certificates() {
        assert!(matches!(
            certificates(&[b"x".to_vec()]),
            Err(AgentError::Certificate(1))
        ));
        assert!(certificates(&[]).is_ok());
    }
}
