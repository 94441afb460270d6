//! Where a request goes: scheme, host and port. Credentials belong to one origin
//! and are never sent to another (RFC 6454 section 4).

use std::fmt;

use ureq::http::Uri;

/// Scheme, host and port, with the port always spelled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Whether TLS protects it.
    pub tls: bool,
    /// Lower case, without port; an IPv6 address in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of `host[:port]`.
    pub(crate) fn of_authority(authority: &str, tls: bool) -> Option<Self> {
        let authority: ureq::http::uri::Authority = authority.parse().ok()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some(Self {
            tls,
            host: authority.host().to_ascii_lowercase(),
            port,
        })
    }

    /// The origin of an absolute `http` or `https` URL.
    #[must_use]
    pub fn of_uri(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Self::of_authority(uri.authority()?.as_str(), tls)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.tls {
            ("https", 443)
        } else {
            ("http", 80)
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

/// What a `Location` header names, seen from the URL that sent it.
#[must_use]
pub fn locate(base: &Uri, location: &str) -> Option<Uri> {
    let absolute = match location {
        _ if location.contains("://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{}:{location}", base.scheme_str()?),
        _ if location.starts_with('/') => format!("{}{location}", Origin::of_uri(base)?),
        _ => {
            let directory = base
                .path()
                .rsplit_once('/')
                .map_or("", |(directory, _)| directory);
            format!("{}{directory}/{location}", Origin::of_uri(base)?)
        }
    };
    let uri: Uri = absolute.split('#').next()?.parse().ok()?;
    Origin::of_uri(&uri).map(|_| uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_includes_scheme_and_port() {
        let of = |text: &str| Origin::of_uri(&text.parse().unwrap());
        assert_eq!(of("https://R.example/x"), of("https://r.example:443/y"));
        assert_ne!(of("https://r.example/"), of("http://r.example/"));
        assert_ne!(of("https://r.example/"), of("https://r.example:444/"));
        assert_eq!(of("https://user@r.example/"), None);
        assert_eq!(of("ftp://r.example/"), None);
        assert_eq!(
            Origin::of_authority("[::1]:5000", false)
                .unwrap()
                .to_string(),
            "http://[::1]:5000"
        );
    }

    #[test]
    fn locations_are_absolute_or_relative_to_their_sender() {
        let base: Uri = "https://r.example:8443/v2/x/blobs/d?q=1".parse().unwrap();
        for (location, found) in [
            ("https://cdn.example/b", Some("https://cdn.example/b")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            ("/b?x=1#f", Some("https://r.example:8443/b?x=1")),
            ("b", Some("https://r.example:8443/v2/x/blobs/b")),
            ("file:///etc/passwd", None),
            ("http://", None),
        ] {
            assert_eq!(
                locate(&base, location)
                    .map(|uri| uri.to_string())
                    .as_deref(),
                found,
                "{location}"
            );
        }
    }
}
