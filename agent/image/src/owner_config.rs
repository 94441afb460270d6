//! What the owner's initdata says about images: `[kbc]` and `[image]` of `cdh.toml`.
//!
//! Tables and keys are those of the Confidential Data Hub of Confidential Containers, but
//! for `layer_private_key_uris`. It
//! ignores keys that it does not know; here a misspelt key is refused, because what it
//! would silently leave out may be the signature policy.
//!
//! Everything named here is part of initdata, whose digest the launch binds, or comes from
//! the key broker; nothing is read from where the host could have put it. The broker is the
//! one that `aa.toml` names (`cc_kbc`, and whenever `[kbc]` is left out), or `offline_fs_kbc`,
//! whose resources are initdata too: the node can read them. They let keys be tried out; they
//! keep no secret.

use std::{fs, io, path::Path, sync::Arc};

use agent_documents::parse_toml;
use agent_image_registry::{Credentials, CredentialsError, RegistriesError, Registry};
use agent_image_signatures::{Lookaside, LookasideError, PolicyError, SignaturePolicy};
use agent_keys::{KeyError, KeyProvider, OfflineError, OfflineKeys, ResourceUri, ResourceUriError};
use agent_protocol::initdata::{DIRECTORY, Initdata};
use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;

use crate::Config;

/// The entry of initdata that is read.
const FILE: &str = "cdh.toml";
/// The resources of `offline_fs_kbc`, by the names that it has them under.
const OFFLINE_FILES: [&str; 2] = [
    "aa-offline_fs_kbc-keys.json",
    "aa-offline_fs_kbc-resources.json",
];
const OFFLINE: &str = "offline_fs_kbc";
/// The broker that `aa.toml` names.
const ONLINE: &str = "cc_kbc";

/// Why initdata does not say how to get images. Its owner is at fault.
#[derive(Debug, Error)]
pub enum OwnerConfigError {
    /// Not TOML of the right shape.
    #[error("initdata's {FILE} cannot be read")]
    Toml(#[source] Box<toml::de::Error>),
    /// A broker that this agent cannot speak to.
    #[error(
        "initdata's {FILE} names the key broker client `{0}`; this agent knows {ONLINE} and {OFFLINE}"
    )]
    Broker(String),
    /// A broker without an address.
    #[error(
        "initdata's {FILE} names the key broker client {ONLINE}, but no aa.toml says where the broker is"
    )]
    NoAddress,
    /// The broker's file.
    #[error("initdata's {file} cannot be used")]
    Offline {
        /// Its name.
        file: &'static str,
        /// Why not.
        #[source]
        source: OfflineError,
    },
    /// An entry that is there cannot be read.
    #[error("cannot read initdata's {name}")]
    Read {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A URI of no kind that is known.
    #[error("`{key}` of initdata's {FILE} is neither a `kbs:///` URI nor a file of initdata")]
    Uri {
        /// The key.
        key: &'static str,
        /// What is wrong with it as a resource.
        #[source]
        source: Option<ResourceUriError>,
    },
    /// A private key that is not a resource.
    #[error(
        "`{key}` of initdata's {FILE} is not a `kbs:///` URI; a private key comes from the key broker only"
    )]
    NotResource {
        /// The key.
        key: &'static str,
    },
    /// A file that initdata does not have.
    #[error("`{key}` of initdata's {FILE} names `{name}`, which initdata does not have")]
    Absent {
        /// The key.
        key: &'static str,
        /// The entry.
        name: String,
    },
    /// A resource without a broker.
    #[error("`{key}` of initdata's {FILE} is a resource, but `[kbc]` names no key broker")]
    NoBroker {
        /// The key.
        key: &'static str,
    },
    /// A resource that the broker does not give.
    #[error("`{key}` of initdata's {FILE} cannot be fetched")]
    Fetch {
        /// The key.
        key: &'static str,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// The credentials.
    #[error("the registry credentials that initdata names cannot be used")]
    Credentials(#[from] CredentialsError),
    /// The registries.
    #[error("the registry configuration that initdata names cannot be used")]
    Registries(#[from] RegistriesError),
    /// The signature policy.
    #[error("the signature policy that initdata names cannot be used")]
    Policy(#[from] PolicyError),
    /// The places of signatures.
    #[error("the signature store configuration that initdata names cannot be used")]
    Lookaside(#[from] LookasideError),
    /// What should be text is none.
    #[error("what `{0}` of initdata's {FILE} names is no text")]
    Text(&'static str),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kbc: Option<Kbc>,
    #[serde(default)]
    image: Image,
    /// Of other parts of the Confidential Data Hub.
    #[serde(rename = "socket")]
    _socket: Option<IgnoredAny>,
    #[serde(rename = "aa")]
    _aa: Option<IgnoredAny>,
    #[serde(rename = "log")]
    _log: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kbc {
    name: String,
    /// Of brokers that are reached over a network.
    #[serde(rename = "url")]
    _url: Option<IgnoredAny>,
    #[serde(rename = "kbs_cert")]
    _kbs_cert: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    image_security_policy_uri: Option<String>,
    image_security_policy: Option<String>,
    sigstore_config_uri: Option<String>,
    sigstore_config: Option<String>,
    authenticated_registry_credentials_uri: Option<String>,
    registry_configuration_uri: Option<String>,
    image_pull_proxy: Option<Proxy>,
    #[serde(default)]
    extra_root_certificates: Vec<String>,
    max_concurrent_layer_downloads_per_image: Option<usize>,
    /// This project's own; the Confidential Data Hub has no such key.
    #[serde(default)]
    layer_private_key_uris: Vec<String>,
    /// Where images are kept is the guest's business.
    #[serde(rename = "work_dir")]
    _work_dir: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proxy {
    https_proxy: Option<String>,
    http_proxy: Option<String>,
    no_proxy: Option<String>,
}

/// The entries of initdata, wherever they are.
pub trait Entries {
    /// The text of an entry, if there is one of that name.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read.
    fn entry(&self, name: &str) -> io::Result<Option<String>>;
}

/// As files, each under its own name.
impl Entries for Path {
    fn entry(&self, name: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Entries for Initdata {
    fn entry(&self, name: &str) -> io::Result<Option<String>> {
        Ok(self.entries().get(name).cloned())
    }
}

impl Config {
    /// Sets what the entries of initdata say; `keys` that are set already are those of the
    /// broker that `aa.toml` names.
    ///
    /// # Errors
    ///
    /// [`OwnerConfigError`]; the configuration must not be used then.
    pub fn follow(&mut self, initdata: &(impl Entries + ?Sized)) -> Result<(), OwnerConfigError> {
        apply(&|name| initdata.entry(name), self)
    }
}

/// Gives entries by their names.
type Find<'a> = &'a dyn Fn(&str) -> io::Result<Option<String>>;

fn apply(initdata: Find<'_>, config: &mut Config) -> Result<(), OwnerConfigError> {
    let Some(text) = entry(initdata, FILE)? else {
        return Ok(());
    };
    let file: File = parse_toml(&text).map_err(|error| OwnerConfigError::Toml(Box::new(error)))?;
    let sources = Sources {
        initdata,
        keys: match file.kbc {
            Some(kbc) => Some(broker(&kbc, initdata, config.keys.take())?),
            None => config.keys.take(),
        },
    };
    let image = file.image;
    if let Some(uri) = &image.authenticated_registry_credentials_uri {
        let json = sources.read("authenticated_registry_credentials_uri", uri)?;
        config.credentials = Credentials::parse(&json)?;
    }
    if let Some(uri) = &image.registry_configuration_uri {
        let text = sources.text("registry_configuration_uri", uri)?;
        config.registries = Registry::parse_conf(&text)?;
    }
    signatures(&image, &sources, config)?;
    if let Some(proxy) = image.image_pull_proxy {
        config.https_proxy = proxy.https_proxy;
        config.http_proxy = proxy.http_proxy;
        config.no_proxy = proxy.no_proxy;
    }
    let roots = image.extra_root_certificates.into_iter();
    config.extra_root_certificates = roots.map(String::into_bytes).collect();
    config.parallel_layers = image.max_concurrent_layer_downloads_per_image;
    config.private_keys = private_keys(&image.layer_private_key_uris, &sources)?;
    config.keys = sources.keys;
    Ok(())
}

/// The names of private keys, which only a broker may have: they are fetched when an image
/// needs one, so that others do not suffer from one that is not to be had.
fn private_keys(
    uris: &[String],
    sources: &Sources<'_>,
) -> Result<Vec<ResourceUri>, OwnerConfigError> {
    const KEY: &str = "layer_private_key_uris";
    if !uris.is_empty() && sources.keys.is_none() {
        return Err(OwnerConfigError::NoBroker { key: KEY });
    }
    let parse = |uri: &String| {
        if !uri.starts_with("kbs") {
            return Err(OwnerConfigError::NotResource { key: KEY });
        }
        ResourceUri::parse(uri).map_err(|source| OwnerConfigError::Uri {
            key: KEY,
            source: Some(source),
        })
    };
    uris.iter().map(parse).collect()
}

/// The policy and where signatures are; of a URI and an inline text, the URI counts.
fn signatures(
    image: &Image,
    sources: &Sources<'_>,
    config: &mut Config,
) -> Result<(), OwnerConfigError> {
    let policy = match (
        &image.image_security_policy_uri,
        &image.image_security_policy,
    ) {
        (Some(uri), _) => Some(sources.read("image_security_policy_uri", uri)?),
        (None, text) => text.clone().map(String::into_bytes),
    };
    config.signature_policy = policy
        .map(|json| SignaturePolicy::parse(&json))
        .transpose()?;
    let lookaside = match (&image.sigstore_config_uri, &image.sigstore_config) {
        (Some(uri), _) => Some(sources.text("sigstore_config_uri", uri)?),
        (None, text) => text.clone(),
    };
    if let Some(text) = lookaside {
        config.lookaside = Some(Lookaside::parse(&text)?);
    }
    Ok(())
}

/// An entry of initdata, if it has one of that name.
fn entry(initdata: Find<'_>, name: &str) -> Result<Option<String>, OwnerConfigError> {
    initdata(name).map_err(|source| OwnerConfigError::Read {
        name: name.to_owned(),
        source,
    })
}

fn broker(
    kbc: &Kbc,
    initdata: Find<'_>,
    online: Option<Arc<dyn KeyProvider>>,
) -> Result<Arc<dyn KeyProvider>, OwnerConfigError> {
    if kbc.name == ONLINE {
        return online.ok_or(OwnerConfigError::NoAddress);
    }
    if kbc.name != OFFLINE {
        return Err(OwnerConfigError::Broker(
            kbc.name.chars().take(64).collect(),
        ));
    }
    let mut keys = OfflineKeys::default();
    for file in OFFLINE_FILES {
        if let Some(json) = entry(initdata, file)? {
            keys.add(json.as_bytes())
                .map_err(|source| OwnerConfigError::Offline { file, source })?;
        }
    }
    Ok(Arc::new(keys))
}

/// Where URIs lead.
struct Sources<'a> {
    initdata: Find<'a>,
    keys: Option<Arc<dyn KeyProvider>>,
}

impl Sources<'_> {
    fn read(&self, key: &'static str, uri: &str) -> Result<Vec<u8>, OwnerConfigError> {
        if let Some(path) = uri.strip_prefix("file://") {
            let name = path
                .strip_prefix(DIRECTORY)
                .and_then(|path| path.strip_prefix('/'))
                .filter(|name| !name.contains('/') && !name.starts_with('.'))
                .ok_or(OwnerConfigError::Uri { key, source: None })?;
            let absent = || OwnerConfigError::Absent {
                key,
                name: name.to_owned(),
            };
            let text = entry(self.initdata, name)?.ok_or_else(absent)?;
            return Ok(text.into_bytes());
        }
        let uri = ResourceUri::parse(uri).map_err(|source| OwnerConfigError::Uri {
            key,
            source: Some(source),
        })?;
        let keys = self
            .keys
            .as_ref()
            .ok_or(OwnerConfigError::NoBroker { key })?;
        let secret = keys
            .fetch(&uri)
            .map_err(|source| OwnerConfigError::Fetch { key, source })?;
        Ok(secret.expose().to_vec())
    }

    fn text(&self, key: &'static str, uri: &str) -> Result<String, OwnerConfigError> {
        String::from_utf8(self.read(key, uri)?).map_err(|_| OwnerConfigError::Text(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[(&str, &str)]) -> Result<Config, OwnerConfigError> {
        let initdata = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            fs::write(initdata.path().join(name), text).unwrap();
        }
        let mut config = Config::default();
        config.follow(initdata.path())?;
        Ok(config)
    }

    fn refusal(entries: &[(&str, &str)]) -> String {
        match set(entries) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    }

    const POLICY: &str = r#"{"default":[{"type":"reject"}]}"#;

    #[test]
    fn without_the_file_nothing_is_set() {
        let config = set(&[("aa.toml", "a = 1")]).unwrap();
        assert!(config.keys.is_none() && config.signature_policy.is_none());
    }

    #[test]
    fn the_online_broker_counts_unless_the_offline_one_is_named() {
        let follow = |kbc: &str, online: bool| {
            let initdata = tempfile::tempdir().unwrap();
            fs::write(initdata.path().join(FILE), kbc).unwrap();
            let mut keys = OfflineKeys::default();
            keys.add(br#"{"a/b/c":"eA=="}"#).unwrap();
            let mut config = Config {
                keys: online.then(|| Arc::new(keys) as Arc<dyn KeyProvider>),
                ..Config::default()
            };
            let uri = ResourceUri::parse("kbs:///a/b/c").unwrap();
            config.follow(initdata.path()).map(|()| {
                let keys = config.keys.as_ref();
                keys.is_some_and(|keys| keys.fetch(&uri).is_ok())
            })
        };
        let (cc, offline) = (
            "[kbc]\nname = \"cc_kbc\"",
            "[kbc]\nname = \"offline_fs_kbc\"",
        );
        assert!(follow("", true).unwrap() && follow(cc, true).unwrap());
        assert!(!follow(offline, true).unwrap() && !follow("", false).unwrap());
        assert!(matches!(
            follow(cc, false),
            Err(OwnerConfigError::NoAddress)
        ));
    }

    #[test]
    fn the_policy_comes_inline_or_from_initdata_or_as_a_resource() {
        let inline = format!("[image]\nimage_security_policy = '''{POLICY}'''");
        assert!(set(&[(FILE, &inline)]).unwrap().signature_policy.is_some());
        let file = format!("[image]\nimage_security_policy_uri = \"file://{DIRECTORY}/p.json\"");
        assert!(
            set(&[(FILE, &file), ("p.json", POLICY)])
                .unwrap()
                .signature_policy
                .is_some()
        );
        let resource = "[kbc]\nname = \"offline_fs_kbc\"\n[image]\nimage_security_policy_uri = \"kbs:///default/policy/p\"";
        let resources = r#"{"default/policy/p":"eyJkZWZhdWx0IjpbeyJ0eXBlIjoicmVqZWN0In1dfQ=="}"#;
        let config = set(&[(FILE, resource), (OFFLINE_FILES[1], resources)]).unwrap();
        assert!(config.signature_policy.is_some() && config.keys.is_some());
    }

    #[test]
    fn private_keys_are_named_by_the_broker_only_and_fetched_later() {
        let text = |uris: &str| format!("[image]\nlayer_private_key_uris = {uris}");
        let broker = |uris: &str| format!("[kbc]\nname = \"offline_fs_kbc\"\n{}", text(uris));
        let two = r#"["kbs:///default/private-key/1", "kbs://host/default/private-key/2"]"#;
        let config = set(&[(FILE, &broker(two))]).unwrap();
        let names: Vec<_> = config
            .private_keys
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            names,
            [
                "kbs:///default/private-key/1",
                "kbs:///default/private-key/2"
            ]
        );
        assert!(set(&[(FILE, &text("[]"))]).unwrap().private_keys.is_empty());
        let file = format!(r#"["file://{DIRECTORY}/key.pem"]"#);
        for (text, what) in [
            (text(two), "names no key broker"),
            (broker(&file), "from the key broker only"),
            (
                broker(r#"["/default/private-key/1"]"#),
                "from the key broker only",
            ),
            (broker(r#"["kbs:///default/1"]"#), "neither"),
            (broker("\"kbs:///a/b/c\""), "cannot be read"),
        ] {
            let error = refusal(&[(FILE, &text), ("key.pem", "x")]);
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_misspelt_key_is_no_missing_policy() {
        let text = "[image]\nimage_securty_policy_uri = \"kbs:///default/policy/p\"";
        assert!(refusal(&[(FILE, text)]).contains(FILE));
        assert!(refusal(&[(FILE, "[imge]\n")]).contains(FILE));
    }

    #[test]
    fn a_file_that_is_nested_too_deep_is_refused_by_name() {
        let dotted = format!("[image]\n{}a = 1", "a.".repeat(100_000));
        let Err(OwnerConfigError::Toml(cause)) = set(&[(FILE, &dotted)]) else {
            panic!("not the error");
        };
        assert!(
            cause.to_string().contains("nested more than 128"),
            "{cause}"
        );
    }

    #[test]
    fn a_policy_that_is_not_there_is_refused() {
        let uri = |uri: &str| format!("[image]\nimage_security_policy_uri = \"{uri}\"");
        let broker = |text: String| format!("[kbc]\nname = \"offline_fs_kbc\"\n{text}");
        for (text, what) in [
            (uri("file:///etc/passwd"), "neither"),
            (uri(&format!("file://{DIRECTORY}/../p")), "neither"),
            (uri("https://example.org/policy"), "neither"),
            (uri(&format!("file://{DIRECTORY}/p.json")), "does not have"),
            (uri("kbs:///default/policy/p"), "names no key broker"),
            (broker(uri("kbs:///default/policy/p")), "cannot be fetched"),
            (
                "[image]\nimage_security_policy = '{}'".to_owned(),
                "signature policy",
            ),
        ] {
            let error = refusal(&[(FILE, &text)]);
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_broker_of_another_kind_is_refused_by_name() {
        let error = refusal(&[(FILE, "[kbc]\nname = \"cc_kbc\"\nurl = \"https://kbs\"")]);
        assert!(error.contains("cc_kbc"), "{error}");
    }

    #[test]
    fn proxies_roots_and_parallelism_are_taken() {
        let text = "[image]\nextra_root_certificates = [\"PEM\"]\nmax_concurrent_layer_downloads_per_image = 2\n\
                    [image.image_pull_proxy]\nhttps_proxy = \"http://proxy:3128\"\nno_proxy = \"local\"";
        let config = set(&[(FILE, text)]).unwrap();
        assert_eq!(config.extra_root_certificates, [b"PEM".to_vec()]);
        assert_eq!(config.https_proxy.as_deref(), Some("http://proxy:3128"));
        assert_eq!(config.parallel_layers, Some(2));
    }
}
