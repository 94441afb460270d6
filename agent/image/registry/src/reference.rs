//! Image references, normalised as Docker's tools do.
//!
//! The text comes from the host. It becomes a registry, a repository and a tag
//! or digest of limited length and alphabet, so that it can stand in a URL or in
//! an error message without further thought.

use std::fmt;

use crate::digest::Digest;

/// A fully spelled image reference: `registry/repository[:tag][@digest]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

impl Reference {
    /// Parses a reference: `busybox` is `docker.io/library/busybox:latest`.
    ///
    /// # Errors
    /// The text breaks the grammar of references.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let mut written = Self::parse_as_written(text)?;
        if written.is_name_only() {
            written.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(written)
    }

    /// As [`Reference::parse`], but what has neither tag nor digest stays without.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn parse_as_written(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |reason| ReferenceError {
            text: text.chars().take(300).collect(),
            reason,
        };
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (
                named,
                Some(
                    Digest::parse(digest)
                        .map_err(|_| refuse("what follows `@` is not a digest"))?,
                ),
            ),
            None => (text, None),
        };
        let (name, tag) = split_tag(named);
        let (registry, path) = split_registry(name);
        let registry = match registry {
            None | Some("docker.io" | "index.docker.io" | "registry-1.docker.io") => {
                DEFAULT_REGISTRY
            }
            Some(host) => host,
        };
        if !is_host(registry) {
            return Err(refuse("its registry is not `host` or `host:port`"));
        }
        let is_official = !path.contains('/') && registry == DEFAULT_REGISTRY;
        let repository = if is_official {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if !is_repository(&repository) {
            return Err(refuse(
                "its repository must be lower-case letters, digits, `.`, `_`, `-` between `/`",
            ));
        }
        if !tag.is_none_or(is_tag) {
            return Err(refuse(
                "its tag must be up to 128 letters, digits, `_`, `.`, `-`",
            ));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Whether it names a repository and nothing in it.
    #[must_use]
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The registry as named, `host[:port]`; Docker Hub is `docker.io`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in its registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, unless only a digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index, if the reference pins one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What stands behind `/manifests/` in the request: the digest wins.
    pub(crate) fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// A colon after the last slash starts a tag; one before it belongs to a port.
fn split_tag(named: &str) -> (&str, Option<&str>) {
    match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    }
}

/// The first part is a registry if it could not be a directory on Docker Hub.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.chars().any(char::is_uppercase) =>
        {
            (Some(host), path)
        }
        _ => (None, name),
    }
}

/// Whether the text is `host`, `host:port`, `[ipv6]` or `[ipv6]:port`.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (
                None,
                rest.strip_prefix(':').or((!rest.is_empty()).then_some("")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.is_none_or(|host| host.len() <= 253 && host.split('.').all(label))
        && port.is_none_or(|port| {
            !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

/// Whether this is the path of a repository at a registry.
#[must_use]
pub fn is_repository(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_path_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    for byte in text.bytes() {
        if !word(byte) {
            separator.push(char::from(byte));
            continue;
        }
        if !matches!(separator.as_str(), "" | "." | "_" | "__")
            && separator.bytes().any(|byte| byte != b'-')
        {
            return false;
        }
        separator.clear();
    }
    separator.is_empty() && text.bytes().next().is_some_and(word)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_spelled_out() {
        let pinned = format!("x@{DIGEST}");
        let spelled_pin = format!("docker.io/library/x@{DIGEST}");
        let both = format!("r.example:5000/a/b:1@{DIGEST}");
        for (text, spelled) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:v1", "localhost:5000/x:v1"),
            (
                "registry.example/a/b__c/d-e.f:T_1",
                "registry.example/a/b__c/d-e.f:T_1",
            ),
            ("10.0.0.1/x", "10.0.0.1/x:latest"),
            ("[fd00::1]:5000/x", "[fd00::1]:5000/x:latest"),
            (pinned.as_str(), spelled_pin.as_str()),
            (both.as_str(), both.as_str()),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), spelled);
            assert_eq!(Reference::parse(spelled).unwrap().to_string(), spelled);
        }
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        for text in [
            "",
            "/",
            "x/",
            "/x",
            "X",
            "a//b",
            "a:",
            "a:.b",
            "a@sha256:1",
            "a b",
            "r.example:0/x",
            "r.example:99999/x",
            "r..example/x",
            "-r.example/x",
            "a/../b",
            "a/..",
            "r.example/x?y",
            "user:pw@r.example/x",
            "[::g]/x",
            "[::1]x/x",
            "r.example/x#y",
            "a._b",
            "a-",
            "http://r.example/x",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
