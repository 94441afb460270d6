//! Names of resources at a broker: `repository/type/tag`.
//!
//! The broker makes file names of them and the guest paths of URLs, so only names that mean
//! the same to everybody are names.

use std::fmt;

use agent_keys::ResourceUri;

/// A resource at a broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName([String; 3]);

/// Why a text names no resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a resource's name is `repository/type/tag`, each of letters, digits, `_`, `-` and, but for \
     the first, `.`, and at most {SEGMENT_MAX} of them"
)]
pub struct ResourceNameError;

/// File systems take 255 bytes, and whoever stores resources may append to it.
const SEGMENT_MAX: usize = 128;

impl ResourceName {
    /// Parses `repository/type/tag`.
    ///
    /// # Errors
    /// Not three segments, or not of the characters that are allowed.
    pub fn parse(text: &str) -> Result<Self, ResourceNameError> {
        let mut segments = text.split('/');
        let mut next = || {
            let segment = segments.next().filter(|segment| is_segment(segment));
            segment.map(str::to_owned).ok_or(ResourceNameError)
        };
        let name = Self([next()?, next()?, next()?]);
        segments.next().map_or(Ok(name), |_| Err(ResourceNameError))
    }

    /// The name that a URI has at a broker; none for other plug-ins and for queries.
    ///
    /// # Errors
    /// See [`ResourceNameError`].
    pub fn of(uri: &ResourceUri) -> Result<Self, ResourceNameError> {
        if uri.plugin() != "resource" || uri.query().is_some() {
            return Err(ResourceNameError);
        }
        Self::parse(uri.path())
    }

    /// Repository, type and tag.
    #[must_use]
    pub fn segments(&self) -> [&str; 3] {
        self.0.each_ref().map(String::as_str)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty()
        && text.len() <= SEGMENT_MAX
        && !text.starts_with('.')
        && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_plain_segments_are_a_name_and_nothing_else_is() {
        for text in ["default/key/1", "a/b/c.d", "_/-/0..1"] {
            assert_eq!(ResourceName::parse(text).unwrap().to_string(), text);
        }
        let long = format!("a/b/{}", "c".repeat(SEGMENT_MAX + 1));
        for text in [
            "",
            "a/b",
            "a/b/c/d",
            "a//c",
            "/a/b/c",
            "a/b/c/",
            "../b/c",
            "a/../c",
            "a/b/.c",
            "a/b/%2e%2e",
            "a/b/c?x",
            "a/b/c\0",
            "a/b/ä",
            &long,
        ] {
            assert_eq!(ResourceName::parse(text), Err(ResourceNameError), "{text}");
        }
    }

    #[test]
    fn uris_of_the_resource_plugin_have_names() {
        let of = |uri: &str| ResourceName::of(&ResourceUri::parse(uri).unwrap());
        assert_eq!(of("kbs://h:1/a/b/c").unwrap().segments(), ["a", "b", "c"]);
        for uri in ["kbs+x:///a/b/c", "kbs:///a/b/c?d", "kbs:///a/b/c~"] {
            assert_eq!(of(uri), Err(ResourceNameError), "{uri}");
        }
    }
}
