//! Fetches what a store lacks from AMD's key server, or one that answers like it.
//!
//! | request | kept as |
//! |---|---|
//! | `/vcek/v1/{product}/{chip}?…SPL=…` | where [`Store`] looks for it; never fetched again |
//! | `/{vcek,vlek}/v1/{product}/cert_chain` | the same path; never fetched again |
//! | `/{vcek,vlek}/v1/{product}/crl` | the same path; fetched each time, an old one is kept if that fails |
//!
//! The server is not trusted, nor is the way to it: everything it gives is judged like what the
//! evidence carries. It may be slow or refuse to answer, so sizes and times are bounded; it
//! limits its callers to few requests, so a refusal is obeyed for as long as it says.
//!
//! Source: AMD 57230, *VCEK Certificate and KDS Interface Specification*.
//!
//! [`Store`]: policy_appraisal::snp::Store

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agent_evidence::MAX_CERTIFICATES_LEN;
use policy_appraisal::snp::{EndorsementLocator, Product, SigningKey};
use ureq::{
    Agent,
    config::Config,
    http::{StatusCode, header::RETRY_AFTER},
    tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
};

/// The bundle of Debian and most others.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// All waiting for one file together.
const PATIENCE: Duration = Duration::from_secs(60);
const REQUEST_MAX: Duration = Duration::from_secs(20);
/// When the server does not say how long.
const PAUSE: Duration = Duration::from_secs(2);

/// Why a certificate cannot be had from the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KdsError {
    /// Not a URL of a server.
    #[error("{0:?} is not the URL of a key server, such as https://kdsintf.amd.com")]
    Url(String),
    /// No authorities to trust a server by.
    #[error("cannot read the certificate authorities {CA_BUNDLE}")]
    Authorities(#[source] io::Error),
    /// No answer.
    #[error("no answer to {url}")]
    Request {
        /// What was asked for.
        url: String,
        /// Why not.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server has not got it.
    #[error("the key server has no {0}: the report names a chip or TCB that it does not know")]
    Unknown(String),
    /// The server refuses too long.
    #[error("the key server limits requests and asks to come back in {seconds} s for {url}")]
    Limited {
        /// What was asked for.
        url: String,
        /// How long it wants.
        seconds: u64,
    },
    /// Another answer.
    #[error("the key server answers {status} to {url}")]
    Status {
        /// What was asked for.
        url: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The answer cannot be kept.
    #[error("cannot keep {}", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A server and the store that it fills.
#[derive(Debug)]
pub(crate) struct Kds<'a> {
    agent: Agent,
    url: &'a str,
    store: &'a Path,
    patience: Duration,
}

impl<'a> Kds<'a> {
    /// Sets out to fill a store from the server at a URL; asks for nothing yet.
    ///
    /// # Errors
    ///
    /// [`KdsError`] when the URL is none, or there are no authorities for https.
    pub(crate) fn new(url: &'a str, store: &'a Path) -> Result<Self, KdsError> {
        let url = url.trim_end_matches('/');
        let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        if host.is_none_or(str::is_empty) {
            return Err(KdsError::Url(url.to_owned()));
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(authorities(url)?)
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        let config = Config::builder()
            .tls_config(tls)
            .proxy(ureq::Proxy::try_from_env())
            .user_agent(concat!("kata-cc/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(REQUEST_MAX))
            .build();
        Ok(Self {
            agent: config.into(),
            url,
            store,
            patience: PATIENCE,
        })
    }

    /// Fetches for a report what the store lacks. Of a report that names no product, each
    /// product is tried.
    ///
    /// # Errors
    ///
    /// [`KdsError`] names what could not be had.
    pub(crate) fn fetch(&self, wanted: &EndorsementLocator) -> Result<(), KdsError> {
        let products = match wanted.product {
            Some(product) => vec![product],
            None => Product::ALL.to_vec(),
        };
        let kind = match wanted.signing_key {
            Some(SigningKey::Vlek) => "vlek",
            _ => "vcek",
        };
        for product in &products {
            for name in ["cert_chain", "crl"] {
                let path = format!("{kind}/v1/{product}/{name}");
                self.keep(&format!("/{path}"), Path::new(&path), name == "crl")?;
            }
        }
        // The server does not give certificates of a provider's key.
        if kind == "vlek" {
            return Ok(());
        }
        let mut missing = None;
        for product in products {
            let leaf = (wanted.kds_request(product), wanted.store_path(product));
            let (Some(request), Some(path)) = leaf else {
                continue;
            };
            match self.keep(&request, &path, false) {
                Err(error @ KdsError::Unknown(_)) => missing = Some(error),
                kept => return kept,
            }
        }
        missing.map_or(Ok(()), Err)
    }

    /// Has a file in the store; asks for it when it is not there, or again if it ages.
    fn keep(&self, request: &str, path: &Path, ages: bool) -> Result<(), KdsError> {
        let path = self.store.join(path);
        let there = path.exists();
        if there && !ages {
            return Ok(());
        }
        match self.ask(request) {
            Ok(content) => write(&path, &content).map_err(|source| KdsError::Keep { path, source }),
            Err(error) if there => {
                // Whether it is too old is for the reference values to say.
                eprintln!("kata-cc: keeping {}: {error}", path.display());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn ask(&self, request: &str) -> Result<Vec<u8>, KdsError> {
        let url = format!("{}{request}", self.url);
        let deadline = Instant::now() + self.patience;
        loop {
            let failed = |source| KdsError::Request {
                url: url.clone(),
                source: Box::new(source),
            };
            let mut response = self.agent.get(&url).call().map_err(failed)?;
            match response.status() {
                StatusCode::OK => {
                    let limit = u64::try_from(MAX_CERTIFICATES_LEN).unwrap_or(u64::MAX);
                    let body = response.body_mut().with_config().limit(limit);
                    return body.read_to_vec().map_err(failed);
                }
                StatusCode::NOT_FOUND => return Err(KdsError::Unknown(request.to_owned())),
                StatusCode::TOO_MANY_REQUESTS => {
                    let wait = response.headers().get(RETRY_AFTER);
                    let wait = wait.and_then(|value| value.to_str().ok()?.parse().ok());
                    let wait = wait.map_or(PAUSE, Duration::from_secs);
                    let left = deadline.saturating_duration_since(Instant::now());
                    if wait > left {
                        let seconds = wait.as_secs();
                        return Err(KdsError::Limited { url, seconds });
                    }
                    thread::sleep(wait);
                }
                status => return Err(KdsError::Status { url, status }),
            }
        }
    }
}

/// For https: whom the machine trusts.
fn authorities(url: &str) -> Result<RootCerts, KdsError> {
    if url.starts_with("http://") {
        return Ok(RootCerts::Specific(Arc::default()));
    }
    let bundle = fs::read(CA_BUNDLE).map_err(KdsError::Authorities)?;
    let certificates = parse_pem(&bundle).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(RootCerts::Specific(Arc::new(certificates.collect())))
}

/// Written aside and moved into place: a reader never sees half of it.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut aside = tempfile::NamedTempFile::new_in(directory)?;
    aside.write_all(content)?;
    aside.persist(path)?;
    Ok(())
}
