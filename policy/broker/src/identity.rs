//! What makes a broker: its TLS identity and its token key, both in the encrypted store.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use zeroize::Zeroizing;

use crate::{
    store::{Store, StoreError},
    store_key::{StoreKey, StoreKeyError},
    token::{TokenKey, TokenKeyError},
};

/// Directory of the store in the broker's.
const STORE: &str = "store";
const TLS_KEY: &str = "tls-key";
const TLS_CERTIFICATE: &str = "tls-certificate";
const TOKEN_KEY: &str = "token-key";
/// A new broker's configuration: it releases nothing until the owner names what is bound.
const CONFIGURATION: &str = include_str!("new_broker.toml");

/// A broker cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key of the store.
    #[error(transparent)]
    StoreKey(#[from] StoreKeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the directory.
    #[error("cannot make {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name of the broker is none.
    #[error("no certificate can be made for {name:?}")]
    Certificate {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// There is one already.
    #[error("{0} holds a broker already: make another one in a directory of its own")]
    Exists(PathBuf),
    /// The keys are not there.
    #[error("{0} holds no broker: make one with `kata-cc broker init`")]
    Missing(PathBuf),
    /// The keys are not what they should be.
    #[error(transparent)]
    Token(#[from] TokenKeyError),
    /// The identity is not what TLS takes.
    #[error("the TLS identity cannot be used")]
    Tls(#[from] rustls::Error),
}

/// The keys of a broker.
pub struct Identity {
    /// How it is known to guests.
    pub tls: Arc<ServerConfig>,
    /// What signs tokens.
    pub token: TokenKey,
}

/// Makes a broker in a new or empty place: directory, store, keys, configuration. Returns its
/// certificate in PEM.
///
/// # Errors
///
/// [`IdentityError`], also if there is a broker already.
pub fn create(directory: &Path, store_key: &Path, name: &str) -> Result<String, IdentityError> {
    let failed = |source| IdentityError::File {
        path: directory.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]);
    let certified = certified.map_err(|source| IdentityError::Certificate {
        name: name.to_owned(),
        source,
    })?;
    let configuration = directory.join(crate::configuration::FILE);
    if configuration.exists() {
        return Err(IdentityError::Exists(directory.to_owned()));
    }
    // A key that cannot be made leaves a directory in which another one can be tried.
    let key = StoreKey::create(store_key, directory)?;
    // Never written over: of two that begin at once, one ends here.
    write_new(&configuration, CONFIGURATION)?;
    let store = Store::open(&directory.join(STORE), key)?;
    let key = Zeroizing::new(certified.signing_key.serialize_der());
    let certificate = certified.cert.der();
    store.put_own(TLS_KEY, &key)?;
    store.put_own(TLS_CERTIFICATE, certificate)?;
    store.put_own(TOKEN_KEY, &TokenKey::generate()?)?;
    Ok(pem(certificate))
}

/// Opens the store of the broker in this directory.
///
/// # Errors
///
/// [`IdentityError`]
pub fn open_store(directory: &Path, store_key: &Path) -> Result<Store, IdentityError> {
    let key = StoreKey::open(store_key, directory)?;
    Ok(Store::open(&directory.join(STORE), key)?)
}

/// The keys in a store.
///
/// # Errors
///
/// [`IdentityError`]
pub fn open(directory: &Path, store: &Store) -> Result<Identity, IdentityError> {
    let find = |name| {
        let found = store.find_own(name)?;
        found.ok_or_else(|| IdentityError::Missing(directory.to_owned()))
    };
    let certificate = CertificateDer::from(find(TLS_CERTIFICATE)?.to_vec());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(find(TLS_KEY)?.to_vec()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Identity {
        tls: Arc::new(tls),
        token: TokenKey::parse(&find(TOKEN_KEY)?)?,
    })
}

/// The entry `aa.toml` of initdata by which a guest knows a broker at this URL, with this
/// certificate in PEM, or with one that its own roots vouch for.
pub fn guest_configuration(url: &str, certificate: Option<&str>) -> String {
    let own = certificate.map(|pem| format!("cert = \"\"\"\n{pem}\"\"\"\n"));
    format!(
        "# Where the guest gets its keys.\n[token_configs.kbs]\nurl = \"{url}\"\n{}",
        own.unwrap_or_default()
    )
}

fn write_new(path: &Path, text: &str) -> Result<(), IdentityError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| IdentityError::File {
        path: path.to_owned(),
        source,
    })
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body: String = lines.map(|line| line.into_owned() + "\n").collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}
