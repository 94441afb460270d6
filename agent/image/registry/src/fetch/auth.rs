//! Registry authentication: what a `WWW-Authenticate` header asks for, and the
//! tokens that answer it.
//!
//! Formats: RFC 9110 section 11 (challenges), RFC 7617 (Basic), RFC 6750
//! (Bearer), and the distribution project's token specification.

use std::{
    fmt,
    time::{Duration, Instant},
};

use agent_documents::parse_json;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use ureq::http::Uri;

use super::origin::Origin;

/// A user name and password for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user's name.
    pub user: String,
    /// The password or access token.
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl Credential {
    /// The value of an `Authorization` header.
    pub(crate) fn basic(&self) -> String {
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", self.user, self.password))
        )
    }
}

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// A challenge header longer than this is not read.
const HEADER_MAX: usize = 4096;

/// Picks the challenge to answer: Bearer before Basic.
pub(crate) fn challenge<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.filter(|header| header.len() <= HEADER_MAX) {
        for (scheme, parameters) in split(header) {
            let named = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = named("realm")
            {
                return Some(Challenge::Bearer {
                    realm,
                    service: named("service"),
                    scope: named("scope"),
                });
            }
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// `Scheme key=value, key="value", Scheme …`
fn split(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = parameter(value);
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token, or a quoted string with its escapes removed; then what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// An `Authorization` header's value, and until when it may be used.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) header: String,
    pub(crate) until: Option<Instant>,
}

impl Authorization {
    pub(crate) fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// What the token specification says when the answer does not.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// Reads a token server's answer; `None` if it holds no token that a header can carry.
pub(crate) fn token(answer: &[u8]) -> Option<Authorization> {
    let answer: TokenAnswer = parse_json(answer).ok()?;
    let token = answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty())?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let life = answer.expires_in.map_or(DEFAULT_LIFE, |seconds| {
        Duration::from_secs(seconds.min(86_400))
    });
    // Not used in its last tenth, so that it does not expire on the way.
    let until = Instant::now() + life.mul_f32(0.9);
    Some(Authorization {
        header: format!("Bearer {token}"),
        until: Some(until),
    })
}

/// What to ask a token server for.
pub(crate) struct TokenQuery<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) scope: Option<&'a str>,
}

impl TokenQuery<'_> {
    /// The URL to get, with a scope of our own if none was asked for.
    pub(crate) fn uri(&self, repository: &str) -> Option<Uri> {
        let own = format!("repository:{repository}:pull");
        let mut text = self.realm.to_owned();
        let pairs = [
            ("service", self.service),
            ("scope", Some(self.scope.unwrap_or(&own))),
        ];
        for (key, value) in pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
        {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(key);
            text.push('=');
            percent_encode(&mut text, value);
        }
        let uri: Uri = text.parse().ok()?;
        Origin::of_uri(&uri).map(|_| uri)
    }
}

fn percent_encode(text: &mut String, value: &str) {
    use std::fmt::Write as _;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_is_preferred_and_its_parameters_are_read() {
        let header = r#"Basic realm="x", Bearer realm="https://a.example/t?x=\"1\"",service="s, t",scope=repository:a:pull"#;
        assert_eq!(
            challenge([header].into_iter()),
            Some(Challenge::Bearer {
                realm: "https://a.example/t?x=\"1\"".into(),
                service: Some("s, t".into()),
                scope: Some("repository:a:pull".into()),
            })
        );
        assert_eq!(
            challenge([r#"basic realm="r""#].into_iter()),
            Some(Challenge::Basic)
        );
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for header in [
            "",
            "Digest x=y",
            "Bearer",
            "Bearer service=x",
            "=",
            "\"",
            "Bearer realm",
            "realm=\"x\"",
        ] {
            assert_eq!(challenge([header].into_iter()), None, "{header}");
        }
    }

    #[test]
    fn tokens_are_read_by_either_name_and_never_carry_a_line_break() {
        assert_eq!(token(br#"{"token":"t"}"#).unwrap().header, "Bearer t");
        assert_eq!(
            token(br#"{"access_token":"t","expires_in":9}"#)
                .unwrap()
                .header,
            "Bearer t"
        );
        for answer in [
            &b"{}"[..],
            b"",
            br#"{"token":""}"#,
            br#"{"token":"a\r\nb"}"#,
            br#"{"token":1}"#,
        ] {
            assert!(token(answer).is_none());
        }
    }

    #[test]
    fn a_credential_is_not_printed() {
        let credential = Credential {
            user: "u".into(),
            password: "secret".into(),
        };
        assert!(!format!("{credential:?}").contains("secret"));
        assert_eq!(credential.basic(), "Basic dTpzZWNyZXQ=");
    }
}
