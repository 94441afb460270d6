//! Where the owner's broker is: `[token_configs.kbs]` of initdata's `aa.toml`.
//!
//! Tables and keys are those of the Attestation Agent of Confidential Containers. It ignores
//! keys that it does not know; here a misspelt key is refused.

use agent_documents::parse_toml;
use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;
use ureq::http::Uri;

/// The one kind of key that this guest makes.
const KEY_ALGORITHM: &str = "ECDH-ES+A256KW-P256";
const TEXT_MAX: usize = 256 << 10;

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

impl Address {
    /// Reads `aa.toml`; none if it names no broker.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Option<Self>, AddressError> {
        if text.len() > TEXT_MAX {
            return Err(AddressError::Length);
        }
        let file: File = parse_toml(text).map_err(|error| AddressError::Toml(Box::new(error)))?;
        let Some(kbs) = file.token_configs.and_then(|tokens| tokens.kbs) else {
            return Ok(None);
        };
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
        Ok(Some(Self {
            url: kbs.url.trim_end_matches('/').to_owned(),
            certificate: kbs.cert.filter(|cert| !cert.trim().is_empty()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_read_and_none_is_none() {
        let text = "[token_configs.kbs]\nurl = \"https://b:8080/\"\ncert = \"PEM\"\n";
        let read = Address::parse(text).unwrap().unwrap();
        assert_eq!(read.url, "https://b:8080");
        assert_eq!(read.certificate.as_deref(), Some("PEM"));
        for none in [
            "",
            "[eventlog_config]\ninit_pcr = 17",
            "[token_configs.coco_as]\nurl = \"x\"",
        ] {
            assert_eq!(Address::parse(none).unwrap(), None);
        }
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
                matches!(Address::parse(&text), Err(AddressError::Url)),
                "{url}"
            );
        }
        let kbs = "[token_configs.kbs]\nurl = \"https://b\"\n";
        assert!(matches!(
            Address::parse(&format!("{kbs}certt = \"x\"")),
            Err(AddressError::Toml(_))
        ));
        assert!(matches!(
            Address::parse(&format!("{kbs}tee_key_algorithm = \"RSA-OAEP-256\"")),
            Err(AddressError::Algorithm)
        ));
        let long = " ".repeat(TEXT_MAX + 1);
        assert!(matches!(Address::parse(&long), Err(AddressError::Length)));
    }
}
