//! Where the owners' brokers are: `[token_configs.kbs]` of initdata's `aa.toml`, and
//! `[token_configs.kbs_of_repository.NAME]` for repositories that another owner's broker has.
//!
//! Tables and keys are those of the Attestation Agent of Confidential Containers, but for the
//! second, which is this project's own. It ignores keys that it does not know; here a misspelt
//! key is refused.

use std::collections::BTreeMap;

use agent_documents::parse_toml;
use agent_keys_protocol::ResourceName;
use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;
use ureq::http::Uri;

/// The one kind of key that this guest makes.
const KEY_ALGORITHM: &str = "ECDH-ES+A256KW-P256";
const TEXT_MAX: usize = 256 << 10;
const REPOSITORIES_MAX: usize = 16;

/// Where keys come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The broker of all repositories that have none of their own.
    pub default: Option<Address>,
    /// Brokers by the repository that each has: the first segment of a resource's name.
    pub of_repositories: BTreeMap<String, Address>,
}

/// Where a broker is, and which certificate it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `https://host:port`, and perhaps a path, without a slash at its end.
    pub(crate) url: String,
    /// PEM; the guest image's root certificates if there is none.
    pub(crate) certificate: Option<String>,
}

/// Why initdata does not say where the broker is. Its owner is at fault.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not TOML of the right shape.
    #[error("initdata's aa.toml cannot be read")]
    Toml(#[source] Box<toml::de::Error>),
    /// Longer than any.
    #[error("initdata's aa.toml is longer than {TEXT_MAX} bytes")]
    Length,
    /// Without TLS anybody on the way could give this guest keys of his own.
    #[error("the `url` of initdata's aa.toml is not `https://host[:port][/path]`")]
    Url,
    /// No resource can have that repository, or there are too many.
    #[error(
        "`[token_configs.kbs_of_repository]` of initdata's aa.toml names what is no repository of \
         resources, or more than {REPOSITORIES_MAX}"
    )]
    Repository,
    /// Another kind of key.
    #[error("the `tee_key_algorithm` of initdata's aa.toml is not {KEY_ALGORITHM}")]
    Algorithm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    token_configs: Option<Tokens>,
    /// The measurement log is the agent's own business.
    #[serde(rename = "eventlog_config")]
    _eventlog_config: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    kbs: Option<Kbs>,
    #[serde(default)]
    kbs_of_repository: BTreeMap<String, Kbs>,
    /// An attestation service without keys.
    #[serde(rename = "coco_as")]
    _coco_as: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kbs {
    url: String,
    cert: Option<String>,
    tee_key_algorithm: Option<String>,
}

impl Addresses {
    /// Reads `aa.toml`.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > TEXT_MAX {
            return Err(AddressError::Length);
        }
        let file: File = parse_toml(text).map_err(|error| AddressError::Toml(Box::new(error)))?;
        let Some(tokens) = file.token_configs else {
            return Ok(Self::default());
        };
        let mut repositories = tokens.kbs_of_repository.keys();
        if tokens.kbs_of_repository.len() > REPOSITORIES_MAX
            || !repositories.all(|name| ResourceName::parse(&format!("{name}/t/t")).is_ok())
        {
            return Err(AddressError::Repository);
        }
        let of_repositories = tokens.kbs_of_repository.into_iter();
        Ok(Self {
            default: tokens.kbs.map(Address::of).transpose()?,
            of_repositories: of_repositories
                .map(|(name, kbs)| Ok((name, Address::of(kbs)?)))
                .collect::<Result<_, AddressError>>()?,
        })
    }

    /// Whether no broker is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.default.is_none() && self.of_repositories.is_empty()
    }
}

impl Address {
    fn of(kbs: Kbs) -> Result<Self, AddressError> {
        if kbs
            .tee_key_algorithm
            .is_some_and(|name| name != KEY_ALGORITHM)
        {
            return Err(AddressError::Algorithm);
        }
        let uri: Uri = kbs.url.parse().map_err(|_| AddressError::Url)?;
        let plain = uri.query().is_none() && !kbs.url.contains(['@', '#']);
        if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) || !plain {
            return Err(AddressError::Url);
        }
        Ok(Self {
            url: kbs.url.trim_end_matches('/').to_owned(),
            certificate: kbs.cert.filter(|cert| !cert.trim().is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_read_and_none_is_none() {
        let text = "[token_configs.kbs]\nurl = \"https://b:8080/\"\ncert = \"PEM\"\n";
        let read = Addresses::parse(text).unwrap().default.unwrap();
        assert_eq!(read.url, "https://b:8080");
        assert_eq!(read.certificate.as_deref(), Some("PEM"));
        for none in [
            "",
            "[eventlog_config]\ninit_pcr = 17",
            "[token_configs.coco_as]\nurl = \"x\"",
        ] {
            assert!(Addresses::parse(none).unwrap().is_empty());
        }
    }

    #[test]
    fn other_owners_brokers_are_read_by_repository_and_what_is_none_is_refused() {
        let of = |name: &str| {
            Addresses::parse(&format!(
                "[token_configs.kbs_of_repository.{name}]\nurl = \"https://c\"\n"
            ))
        };
        let read = of("second").unwrap();
        assert_eq!(read.of_repositories["second"].url, "https://c");
        assert!(read.default.is_none() && !read.is_empty());
        for name in ["'a/b'", "'..'", "''", "'a b'"] {
            assert!(matches!(of(name), Err(AddressError::Repository)), "{name}");
        }
        let many: String = (0..=REPOSITORIES_MAX)
            .map(|n| format!("[token_configs.kbs_of_repository.r{n}]\nurl = \"https://c\"\n"))
            .collect();
        assert!(matches!(
            Addresses::parse(&many),
            Err(AddressError::Repository)
        ));
    }

    #[test]
    fn unknown_keys_and_urls_without_tls_are_refused() {
        for url in [
            "http://b",
            "b:1",
            "https://",
            "https://u@b",
            "https://b?x",
            "ftp://b",
            "",
        ] {
            let text = format!("[token_configs.kbs]\nurl = \"{url}\"\n");
            assert!(
                matches!(Addresses::parse(&text), Err(AddressError::Url)),
                "{url}"
            );
        }
        let kbs = "[token_configs.kbs]\nurl = \"https://b\"\n";
        assert!(matches!(
            Addresses::parse(&format!("{kbs}certt = \"x\"")),
            Err(AddressError::Toml(_))
        ));
        assert!(matches!(
            Addresses::parse(&format!("{kbs}tee_key_algorithm = \"RSA-OAEP-256\"")),
            Err(AddressError::Algorithm)
        ));
        let long = " ".repeat(TEXT_MAX + 1);
        assert!(matches!(Addresses::parse(&long), Err(AddressError::Length)));
    }
}
