//! Names of resources: `kbs:///repository/type/tag` and its relatives.
//!
//! Written by whoever encrypted an image, so every form found in real images is
//! read; they all come down to a plug-in and a path. The host part is ignored:
//! which broker is asked is the guest's configuration, not the image's choice.

use std::fmt;

/// A resource of a key broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceUri {
    plugin: String,
    path: String,
    query: Option<String>,
}

/// Why a text names no resource.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` does not name a resource: {reason}")]
pub struct ResourceUriError {
    text: String,
    reason: &'static str,
}

const DEFAULT_PLUGIN: &str = "resource";
const LENGTH_MAX: usize = 1024;

impl ResourceUri {
    /// Parses `kbs[+plugin]://[host[:port]]/path…[?query]`, `/repository/type/tag`
    /// or `host[:port]/repository/type/tag`.
    ///
    /// # Errors
    /// Any other form, an empty or relative segment, or too long a text.
    pub fn parse(text: &str) -> Result<Self, ResourceUriError> {
        let refuse = |reason| ResourceUriError {
            text: text.chars().take(200).collect(),
            reason,
        };
        if text.len() > LENGTH_MAX {
            return Err(refuse("it is too long"));
        }
        let (plugin, rest) = match text.split_once("://") {
            Some(("kbs", rest)) => (DEFAULT_PLUGIN, rest),
            Some((scheme, rest)) => {
                let plugin = scheme
                    .strip_prefix("kbs+")
                    .ok_or_else(|| refuse("its scheme is not `kbs`"))?;
                (plugin, rest)
            }
            None => (DEFAULT_PLUGIN, text),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (_host, path) = rest
            .split_once('/')
            .ok_or_else(|| refuse("it has no path"))?;
        if !is_segment(plugin)
            || !path.split('/').all(is_segment)
            || !query.as_deref().is_none_or(is_query)
        {
            return Err(refuse(
                "it has an empty segment or characters that do not belong there",
            ));
        }
        if plugin == DEFAULT_PLUGIN && path.split('/').count() != 3 {
            return Err(refuse("it is not `repository/type/tag`"));
        }
        Ok(Self {
            plugin: plugin.to_owned(),
            path: path.to_owned(),
            query,
        })
    }

    /// The plug-in that serves it; `resource` unless named.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Its path, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:+@=".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(allowed)
}

fn is_query(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plugin = if self.plugin == DEFAULT_PLUGIN {
            String::new()
        } else {
            format!("+{}", self.plugin)
        };
        write!(f, "kbs{plugin}:///{}", self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_found_in_images_are_read() {
        for (text, normal) in [
            ("kbs:///default/key/1", "kbs:///default/key/1"),
            (
                "kbs://broker.example:8080/default/key/1",
                "kbs:///default/key/1",
            ),
            ("kbs+resource:///default/key/1", "kbs:///default/key/1"),
            ("/default/image-kek/0b5f", "kbs:///default/image-kek/0b5f"),
            ("broker.example:8080/default/key/1", "kbs:///default/key/1"),
            ("kbs+pkcs11:///a/b/c/d?x=1", "kbs+pkcs11:///a/b/c/d?x=1"),
        ] {
            assert_eq!(ResourceUri::parse(text).unwrap().to_string(), normal);
        }
    }

    #[test]
    fn what_is_not_a_resource_is_refused() {
        let long = format!("kbs:///a/b/{}", "c".repeat(2000));
        for text in [
            "",
            "kbs://",
            "kbs:///",
            "kbs:///a/b",
            "kbs:///a/b/c/d",
            "kbs:///a//c",
            "kbs:///a/../c",
            "kbs:///a/./c",
            "https://h/a/b/c",
            "kbs+:///a/b/c",
            "kbs:///a/b/c\n",
            "kbs:///a/b/%2e%2e",
            "a/b/c",
            "/a/b",
            &long,
        ] {
            assert!(ResourceUri::parse(text).is_err(), "{text}");
        }
    }
}
