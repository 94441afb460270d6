//! Keys from a file, for tests and for guests whose image carries its own keys.
//!
//! Format: one JSON object, `repository/type/tag` → standard base64, as the
//! offline file key-broker client of Confidential Containers reads it.

use std::collections::BTreeMap;

use agent_documents::parse_json;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{KeyError, KeyProvider, ResourceUri, Secret};

/// Resources read from files.
#[derive(Debug, Default)]
pub struct OfflineKeys {
    resources: BTreeMap<String, Secret>,
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// Not a JSON object of texts.
    #[error("the key file is not a JSON object of texts")]
    Json(#[source] serde_json::Error),
    /// A value that is not base64.
    #[error("the key file's value of `{0}` is not base64")]
    Base64(String),
}

impl OfflineKeys {
    /// Adds the keys of a file; of a name given twice, the later file's counts.
    ///
    /// # Errors
    /// See [`OfflineError`].
    pub fn add(&mut self, json: &[u8]) -> Result<(), OfflineError> {
        let file: BTreeMap<String, String> = parse_json(json).map_err(OfflineError::Json)?;
        for (name, value) in file {
            let bytes = STANDARD
                .decode(value)
                .map_err(|_| OfflineError::Base64(name.clone()))?;
            self.resources.insert(name, Secret::new(bytes));
        }
        Ok(())
    }

    /// Adds one key under the path of its name.
    pub fn insert(&mut self, uri: &ResourceUri, secret: Secret) {
        self.resources.insert(uri.path().to_owned(), secret);
    }
}

impl KeyProvider for OfflineKeys {
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
        let found = self
            .resources
            .get(uri.path())
            .filter(|_| uri.plugin() == "resource");
        found.cloned().ok_or_else(|| KeyError::Absent(uri.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_path_and_only_there() {
        let mut keys = OfflineKeys::default();
        keys.add(br#"{"default/key/1":"a2V5"}"#).unwrap();
        let fetch = |text: &str| keys.fetch(&ResourceUri::parse(text).unwrap());
        assert_eq!(fetch("kbs:///default/key/1").unwrap().expose(), b"key");
        assert!(matches!(
            fetch("kbs:///default/key/2"),
            Err(KeyError::Absent(_))
        ));
        assert!(matches!(
            fetch("kbs+other:///default/key/1"),
            Err(KeyError::Absent(_))
        ));
    }

    #[test]
    fn a_key_that_is_put_in_is_found_under_its_name() {
        let mut keys = OfflineKeys::default();
        let uri = ResourceUri::parse("kbs:///a/b/c").unwrap();
        assert!(matches!(keys.fetch(&uri), Err(KeyError::Absent(_))));
        keys.insert(&uri, Secret::new(b"key".to_vec()));
        assert_eq!(keys.fetch(&uri).unwrap().expose(), b"key");
    }

    #[test]
    fn broken_files_are_refused() {
        let mut keys = OfflineKeys::default();
        assert!(matches!(keys.add(b"[]"), Err(OfflineError::Json(_))));
        assert!(matches!(
            keys.add(br#"{"a/b/c":"?"}"#),
            Err(OfflineError::Base64(_))
        ));
    }
}
