//! What a simple signature or a cosign signature says: that a manifest digest is the
//! image of a name.
//!
//! Format: `containers-signature(5)`; cosign uses the same with another type, and
//! writes `null` for optional members that are absent. As containers/image does, all
//! critical members must be known, each is given once, and optional ones may be
//! anything, except that `creator` is a text and `timestamp` a whole number.

use std::fmt;

use agent_documents::parse_json;
use agent_image_registry::{Digest, DigestError};
use serde::{
    Deserialize,
    de::{self, Deserializer, IgnoredAny, MapAccess, Visitor},
};

/// Which tool's signature it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Simple,
    Cosign,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Simple => "atomic container signature",
            Self::Cosign => "cosign container image signature",
        }
    }
}

/// A signed statement about an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) digest: Digest,
    /// The image's name, as it was signed.
    pub(super) reference: String,
}

/// Why signed bytes say nothing about an image.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    /// Not JSON of the right shape.
    #[error("what is signed is not a statement about an image")]
    Json(#[source] serde_json::Error),
    /// A statement of another kind.
    #[error("what is signed has the type `{found}` instead of `{expected}`")]
    Type {
        /// Its type.
        found: String,
        /// The right one.
        expected: &'static str,
    },
    /// Something else where the digest should be.
    #[error("what is signed names no manifest")]
    Digest(#[source] DigestError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    critical: Critical,
    #[serde(deserialize_with = "optional")]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

impl Payload {
    pub(super) fn parse(bytes: &[u8], kind: Kind) -> Result<Self, PayloadError> {
        let raw: Raw = parse_json(bytes).map_err(PayloadError::Json)?;
        if raw.critical.kind != kind.name() {
            return Err(PayloadError::Type {
                found: super::shown::shown(&raw.critical.kind),
                expected: kind.name(),
            });
        }
        if !raw.optional && kind == Kind::Simple {
            return Err(PayloadError::Json(de::Error::custom("`optional` is null")));
        }
        let digest = Digest::parse(&raw.critical.image.digest).map_err(PayloadError::Digest)?;
        Ok(Self {
            digest,
            reference: raw.critical.identity.reference,
        })
    }
}

/// Checks the optional members; whether there is an object of them.
fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(Members)
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<bool, A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = access.next_key::<String>()? {
            match key.as_str() {
                "creator" => drop(access.next_value::<String>()?),
                "timestamp" => check_timestamp(access.next_value::<f64>()?)?,
                _ => drop(access.next_value::<IgnoredAny>()?),
            }
            if !seen.insert(key) {
                return Err(de::Error::custom("an optional member is given twice"));
            }
        }
        Ok(true)
    }
}

fn check_timestamp<E: de::Error>(seconds: f64) -> Result<(), E> {
    if seconds.fract() != 0.0 {
        return Err(E::custom("`timestamp` is not a whole number"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn text(kind: Kind, optional: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r.example/app:1"}},
            "image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"{}"}},"optional":{optional}}}"#,
            kind.name()
        )
    }

    fn parse(text: &str, kind: Kind) -> Result<Payload, PayloadError> {
        Payload::parse(text.as_bytes(), kind)
    }

    #[test]
    fn both_kinds_are_read() {
        for (kind, optional) in [
            (
                Kind::Simple,
                r#"{"creator":"c","timestamp":1.0e9,"more":[1]}"#,
            ),
            (Kind::Simple, "{}"),
            (Kind::Cosign, "null"),
            (Kind::Cosign, r#"{"a":"b"}"#),
        ] {
            let payload = parse(&text(kind, optional), kind).unwrap();
            assert_eq!(
                (payload.digest.as_str(), payload.reference.as_str()),
                (DIGEST, "r.example/app:1")
            );
        }
    }

    #[test]
    fn one_kind_is_not_the_other() {
        for (kind, other) in [(Kind::Simple, Kind::Cosign), (Kind::Cosign, Kind::Simple)] {
            assert!(matches!(
                parse(&text(kind, "{}"), other),
                Err(PayloadError::Type { .. })
            ));
        }
    }

    #[test]
    fn whatever_two_readers_could_read_differently_is_refused() {
        let good = text(Kind::Simple, "{}");
        for bad in [
            text(Kind::Simple, "null"),
            text(Kind::Simple, "[]"),
            text(Kind::Simple, r#"{"timestamp":1.5}"#),
            text(Kind::Simple, r#"{"timestamp":"1"}"#),
            text(Kind::Simple, r#"{"creator":1}"#),
            text(Kind::Simple, r#"{"a":1,"a":2}"#),
            good.replace(r#""optional":{}"#, r#""more":1,"optional":{}"#),
            good.replace(r#","optional":{}"#, ""),
            good.replace(r#""type":"#, r#""more":1,"type":"#),
            good.replace(r#""type":"#, r#""Type":"x","type":"#),
            good.replace(
                r#""identity":"#,
                r#""identity":{"docker-reference":"x"},"identity":"#,
            ),
            good.replace(r#"":"r.example"#, r#"":"x","docker-reference":"r.example"#),
            good.replace(
                r#"{"docker-manifest-digest":"#,
                r#"{"more":1,"docker-manifest-digest":"#,
            ),
            format!("{good}{good}"),
            String::new(),
        ] {
            assert!(
                matches!(parse(&bad, Kind::Simple), Err(PayloadError::Json(_))),
                "{bad}"
            );
        }
        let short = good.replace("sha256:e3", "sha256:");
        assert!(matches!(
            parse(&short, Kind::Simple),
            Err(PayloadError::Digest(_))
        ));
    }
}
