//! Reads `registries.conf`.
//!
//! Format: `containers-registries.conf(5)`, version 2, as TOML. The file comes
//! with the owner's configuration; an unknown key is an error, because a rule that
//! is not understood must not be skipped silently.

use agent_documents::parse_toml;
use serde::Deserialize;

use crate::registries::{Mirror, Registry};

/// Why a `registries.conf` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistriesError {
    /// Not TOML, or keys that are not known.
    #[error("the registry configuration cannot be read")]
    Toml(#[source] Box<toml::de::Error>),
    /// A table that applies to nothing.
    #[error("registry {0} of the registry configuration has neither prefix nor location")]
    Unnamed(usize),
    /// A wildcard that is not `*.domain`.
    #[error(
        "the registry configuration's prefix `{0}` is no name: only `*.domain` may have a wildcard"
    )]
    Wildcard(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Names are fully spelled before they come here, so nothing is searched for.
    #[serde(default, rename = "unqualified-search-registries")]
    _unqualified: Vec<String>,
    #[serde(default)]
    registry: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
}

impl Registry {
    /// Parses the text of a `registries.conf`.
    ///
    /// # Errors
    /// See [`RegistriesError`].
    pub fn parse_conf(text: &str) -> Result<Vec<Self>, RegistriesError> {
        let file: File =
            parse_toml(text).map_err(|error| RegistriesError::Toml(Box::new(error)))?;
        file.registry
            .into_iter()
            .enumerate()
            .map(|(index, table)| table.registry(index + 1))
            .collect()
    }
}

impl Table {
    fn registry(self, number: usize) -> Result<Registry, RegistriesError> {
        let prefix = self
            .prefix
            .filter(|prefix| !prefix.is_empty())
            .or_else(|| self.location.clone());
        let prefix = prefix
            .filter(|prefix| !prefix.is_empty())
            .ok_or(RegistriesError::Unnamed(number))?;
        if prefix.strip_prefix("*.").unwrap_or(&prefix).contains('*') {
            return Err(RegistriesError::Wildcard(prefix));
        }
        let mirrors = self.mirror.into_iter();
        Ok(Registry {
            prefix,
            location: self.location.filter(|location| !location.is_empty()),
            insecure: self.insecure,
            blocked: self.blocked,
            mirrors: mirrors
                .map(|MirrorTable { location, insecure }| Mirror { location, insecure })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_nested_too_deep_is_refused_by_name() {
        for text in [
            "a.".repeat(100_000) + "a = 1",
            "x = ".to_owned() + &"[".repeat(100_000),
        ] {
            let Err(RegistriesError::Toml(cause)) = Registry::parse_conf(&text) else {
                panic!("not the error");
            };
            assert!(
                cause.to_string().contains("nested more than 128"),
                "{cause}"
            );
        }
    }

    #[test]
    fn the_subset_is_read() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            prefix = "docker.io/library"
            location = "r.example/hub"
            [[registry.mirror]]
            location = "m.example:5000/hub"
            insecure = true
            [[registry]]
            location = "bad.example"
            blocked = true
        "#;
        let [hub, bad] = Registry::parse_conf(text).unwrap().try_into().unwrap();
        assert_eq!(
            (hub.prefix.as_str(), hub.location.as_deref()),
            ("docker.io/library", Some("r.example/hub"))
        );
        assert_eq!(
            hub.mirrors,
            [Mirror {
                location: "m.example:5000/hub".into(),
                insecure: true
            }]
        );
        assert!(bad.blocked && bad.prefix == "bad.example");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "x = 1",
            "[[registry]]\nlocation = 1",
            "[[registry]]\nprefix = \"a\"\npull-from-mirror = \"all\"",
            "[[registry]]\ninsecure = true",
            "[[registry]]\nprefix = \"a*\"",
            "[[registry]]\nprefix = \"*.a.*\"",
        ] {
            assert!(Registry::parse_conf(text).is_err(), "{text}");
        }
    }
}
