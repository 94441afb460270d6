//! The credentials file: who we are to which registry.
//!
//! Format: `containers-auth.json(5)`, the `auths` table only; credential helpers
//! would be other programs, and the guest has none.

use std::collections::BTreeMap;

use agent_documents::parse_json;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::auth::Credential;

/// Credentials by registry, namespace or repository.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    by_name: BTreeMap<String, Credential>,
}

/// Why a credentials file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Not JSON of the right shape.
    #[error("the credentials file is not JSON with an object `auths`")]
    Json(#[source] serde_json::Error),
    /// An `auth` that is not base64 of `user:password`.
    #[error("the credentials file's entry `{0}` is not base64 of `user:password`")]
    Entry(String),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
}

impl Credentials {
    /// Parses `{"auths":{"<registry>[/<path>]":{"auth":"<base64>"}}}`; entries
    /// without `auth` say nothing and are skipped.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub fn parse(json: &[u8]) -> Result<Self, CredentialsError> {
        let file: File = parse_json(json).map_err(CredentialsError::Json)?;
        let mut by_name = BTreeMap::new();
        for (name, entry) in file.auths {
            let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else {
                continue;
            };
            let credential = decode(&auth).ok_or_else(|| CredentialsError::Entry(name.clone()))?;
            by_name.insert(normal(&name), credential);
        }
        Ok(Self { by_name })
    }

    /// The credential for `registry/path…`: the longest name that is a prefix of it.
    pub(crate) fn find(&self, name: &str) -> Option<&Credential> {
        let mut name = normal(name);
        loop {
            if let Some(found) = self.by_name.get(&name) {
                return Some(found);
            }
            name.truncate(name.rfind('/')?);
        }
    }
}

fn decode(auth: &str) -> Option<Credential> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    // `echo` leaves a line feed in many such files.
    let password = password.trim_end_matches(['\n', '\r']);
    Some(Credential {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

/// Without scheme; Docker Hub under one name, whichever of its names was used.
/// `docker login` writes that one as `https://index.docker.io/v1/`.
fn normal(name: &str) -> String {
    let (name, is_url) = match name.split_once("://") {
        Some((_, rest)) => (rest, true),
        None => (name, false),
    };
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    let hub = matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    );
    let host = if hub { "docker.io" } else { host };
    let path = path.trim_end_matches('/');
    let is_version = matches!(path, "v1" | "v2");
    if path.is_empty() || is_version || is_url {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(entries: &[(&str, &str)]) -> Credentials {
        let entries: Vec<String> = entries
            .iter()
            .map(|(name, user)| {
                format!(
                    r#""{name}":{{"auth":"{}"}}"#,
                    STANDARD.encode(format!("{user}:p\n"))
                )
            })
            .collect();
        let json = format!(r#"{{"auths":{{{},"empty":{{}}}}}}"#, entries.join(","));
        Credentials::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn longest_prefix_wins_and_only_whole_components_match() {
        let known = credentials(&[
            ("r.example", "a"),
            ("r.example/ns", "b"),
            ("r.example/ns/repo", "c"),
        ]);
        let user = |name| known.find(name).map(|credential| credential.user.as_str());
        assert_eq!(user("r.example/ns/repo"), Some("c"));
        assert_eq!(user("r.example/ns/other"), Some("b"));
        assert_eq!(user("r.example/nsx/repo"), Some("a"));
        assert_eq!(user("r.example:5000/ns"), None);
        assert_eq!(known.find("r.example/x").unwrap().password, "p");
    }

    #[test]
    fn docker_hub_has_many_names() {
        for name in [
            "docker.io",
            "index.docker.io",
            "https://index.docker.io/v1/",
            "registry-1.docker.io",
        ] {
            assert!(
                credentials(&[(name, "u")])
                    .find("docker.io/library/busybox")
                    .is_some(),
                "{name}"
            );
        }
    }

    #[test]
    fn broken_files_are_refused_by_entry() {
        assert!(matches!(
            Credentials::parse(b"7"),
            Err(CredentialsError::Json(_))
        ));
        let broken = br#"{"auths":{"r.example":{"auth":"eA=="}}}"#;
        assert!(
            matches!(Credentials::parse(broken), Err(CredentialsError::Entry(name)) if name == "r.example")
        );
    }
}
