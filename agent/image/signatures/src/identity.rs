//! Which name a signature must be for (`signedIdentity`).
//!
//! `containers-policy.json(5)` gives the rules. A signature names its image by text,
//! which counts as written: no tag is added, so one for a repository alone is not
//! one for its `latest`.

use agent_image_registry::{Reference, is_host, is_repository};
use serde::Deserialize;

use super::shown::shown;

/// Which name a signature must be for.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// The image's own.
    MatchExact,
    /// As above; where the image is named by digest, any of its repository.
    MatchRepoDigestOrExact,
    /// Any of the image's repository.
    MatchRepository,
    /// This one.
    ExactReference(Reference),
    /// Any of this repository, given as `registry/repository`.
    ExactRepository(String),
    /// The image's name with another prefix, then as `MatchRepoDigestOrExact`.
    Remap {
        prefix: String,
        signed_prefix: String,
    },
    /// `MatchRepoDigestOrExact`, but a signature that names a repository alone, as cosign's
    /// do, must name the image's.
    SigstoreDefault,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawIdentity {
    #[serde(rename = "type")]
    kind: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

impl RawIdentity {
    /// Checks what its type demands; the error completes "cannot be used: …".
    pub(super) fn identity(self) -> Result<Identity, String> {
        let (own, foreign): (&[&str], &[(&str, bool)]) = (
            match self.kind.as_str() {
                "exactReference" => &["dockerReference"],
                "exactRepository" => &["dockerRepository"],
                "remapIdentity" => &["prefix", "signedPrefix"],
                _ => &[],
            },
            &[
                ("dockerReference", self.docker_reference.is_some()),
                ("dockerRepository", self.docker_repository.is_some()),
                ("prefix", self.prefix.is_some()),
                ("signedPrefix", self.signed_prefix.is_some()),
            ],
        );
        for (name, given) in foreign {
            match (own.contains(name), given) {
                (true, false) => {
                    return Err(format!("`{name}` of its `signedIdentity` is missing"));
                }
                (false, true) => {
                    return Err(format!("`{name}` does not belong to its `signedIdentity`"));
                }
                _ => {}
            }
        }
        match self.kind.as_str() {
            "matchExact" => Ok(Identity::MatchExact),
            "matchRepoDigestOrExact" => Ok(Identity::MatchRepoDigestOrExact),
            "matchRepository" => Ok(Identity::MatchRepository),
            "exactReference" => reference(&self.docker_reference.unwrap_or_default()),
            "exactRepository" => repository(&self.docker_repository.unwrap_or_default()),
            "remapIdentity" => Ok(Identity::Remap {
                prefix: prefix(self.prefix.unwrap_or_default())?,
                signed_prefix: prefix(self.signed_prefix.unwrap_or_default())?,
            }),
            other => Err(format!(
                "the type `{}` of its `signedIdentity` is not known",
                shown(other)
            )),
        }
    }
}

fn reference(text: &str) -> Result<Identity, String> {
    let reference = Reference::parse_as_written(text).map_err(|error| error.to_string())?;
    if reference.is_name_only() {
        return Err("its `dockerReference` must have a tag or a digest".to_owned());
    }
    Ok(Identity::ExactReference(reference))
}

fn repository(text: &str) -> Result<Identity, String> {
    let reference = Reference::parse_as_written(text).map_err(|error| error.to_string())?;
    if !reference.is_name_only() {
        return Err(
            "its `dockerRepository` must be a repository alone, because no tag is looked at"
                .to_owned(),
        );
    }
    Ok(Identity::ExactRepository(reference.name()))
}

/// A registry, perhaps with a namespace or repository, fully spelled.
fn prefix(text: String) -> Result<String, String> {
    let (host, path) = text
        .split_once('/')
        .map_or((text.as_str(), None), |(host, path)| (host, Some(path)));
    if is_host(host) && path.is_none_or(is_repository) {
        Ok(text)
    } else {
        Err(format!(
            "its prefix `{}` is not `host[:port][/path]`",
            shown(&text)
        ))
    }
}

impl Identity {
    /// Whether a signature for `signed`, as it is written there, is one for the image `wanted`.
    pub(super) fn allows(&self, wanted: &Reference, signed: &str) -> bool {
        let Ok(signed) = Reference::parse_as_written(signed) else {
            return false;
        };
        match self {
            Self::MatchExact => !signed.is_name_only() && signed == *wanted,
            Self::MatchRepoDigestOrExact => repo_digest_or_exact(wanted, &signed),
            Self::MatchRepository => signed.name() == wanted.name(),
            Self::SigstoreDefault if signed.is_name_only() => signed.name() == wanted.name(),
            Self::SigstoreDefault => repo_digest_or_exact(wanted, &signed),
            Self::ExactReference(exact) => signed == *exact,
            Self::ExactRepository(exact) => signed.name() == *exact,
            Self::Remap {
                prefix,
                signed_prefix,
            } => remapped(wanted, prefix, signed_prefix)
                .is_some_and(|wanted| repo_digest_or_exact(&wanted, &signed)),
        }
    }

    /// What it demands, for messages: "it must be for …".
    pub(super) fn demand(&self, wanted: &Reference) -> String {
        match self {
            Self::MatchExact => format!("`{wanted}`"),
            Self::MatchRepoDigestOrExact if wanted.tag().is_some() => format!("`{wanted}`"),
            Self::MatchRepoDigestOrExact => format!("a tag of `{}`", wanted.name()),
            Self::MatchRepository => format!("the repository `{}`", wanted.name()),
            Self::SigstoreDefault => format!("`{wanted}` or the repository `{}`", wanted.name()),
            Self::ExactReference(exact) => format!("`{exact}`"),
            Self::ExactRepository(exact) => format!("the repository `{exact}`"),
            Self::Remap {
                prefix,
                signed_prefix,
            } => format!("`{wanted}` with `{signed_prefix}` in the place of `{prefix}`"),
        }
    }
}

/// The digest of a reference is checked against the manifest before any signature,
/// so what remains to compare is the tag, and where there is none, the repository.
fn repo_digest_or_exact(wanted: &Reference, signed: &Reference) -> bool {
    if signed.is_name_only() || signed.name() != wanted.name() {
        return false;
    }
    match (wanted.tag(), wanted.digest()) {
        (Some(_), _) => {
            signed.tag() == wanted.tag()
                && (signed.digest().is_none() || signed.digest() == wanted.digest())
        }
        (None, digest) => digest.is_some(),
    }
}

fn remapped(wanted: &Reference, prefix: &str, signed_prefix: &str) -> Option<Reference> {
    let text = wanted.to_string();
    let Some(rest) = text.strip_prefix(prefix) else {
        return Some(wanted.clone());
    };
    // Inside the name a prefix ends where a part of the name ends.
    let name = wanted.name();
    if name != *prefix
        && !name
            .get(prefix.len()..)
            .is_some_and(|rest| rest.starts_with('/'))
    {
        return Some(wanted.clone());
    }
    Reference::parse_as_written(&format!("{signed_prefix}{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(identity: &Identity, cases: &[(&str, &str, bool)]) {
        for (wanted, signed, allowed) in cases {
            let image = Reference::parse(wanted).unwrap();
            assert_eq!(
                identity.allows(&image, signed),
                *allowed,
                "{identity:?} {wanted} {signed}"
            );
        }
    }

    #[test]
    fn without_an_identity_cosign_s_signature_is_for_the_image_or_names_its_repository_alone() {
        check(
            &Identity::SigstoreDefault,
            &[
                ("r.example/app:1", "r.example/app", true),
                ("r.example/app:1", "r.example/app:1", true),
                (&format!("r.example/app@{DIGEST}"), "r.example/app", true),
                (&format!("r.example/app@{DIGEST}"), "r.example/app:1", true),
                ("r.example/app:1", "r.example/app:2", false),
                ("r.example/app:1", "r.example/other", false),
                ("r.example/app:1", "other.example/app", false),
                ("r.example/app:1", "r.example/app/more", false),
                ("r.example/app:1", "", false),
                ("r.example/app:1", "?", false),
            ],
        );
    }

    #[test]
    fn match_exact_wants_the_very_reference() {
        check(
            &Identity::MatchExact,
            &[
                ("r.example/app:1", "r.example/app:1", true),
                ("busybox", "docker.io/library/busybox:latest", true),
                ("busybox", "busybox", false),
                ("r.example/app:1", "r.example/app:2", false),
                ("r.example/app:1", "r.example/other:1", false),
                (&format!("r.example/app@{DIGEST}"), "r.example/app:1", false),
                ("r.example/app:1", "?", false),
                ("r.example/app:1", "", false),
            ],
        );
    }

    #[test]
    fn match_repo_digest_or_exact_wants_the_tag_unless_there_is_none() {
        check(
            &Identity::MatchRepoDigestOrExact,
            &[
                ("r.example/app:1", "r.example/app:1", true),
                ("r.example/app:1", "r.example/app:2", false),
                ("r.example/app:1", "r.example/app", false),
                ("r.example/app", "r.example/app", false),
                (
                    &format!("r.example/app@{DIGEST}"),
                    "r.example/app:any",
                    true,
                ),
                (
                    &format!("r.example/app@{DIGEST}"),
                    "r.example/other:1",
                    false,
                ),
                (&format!("r.example/app@{DIGEST}"), "r.example/app", false),
                (
                    &format!("r.example/app:1@{DIGEST}"),
                    "r.example/app:1",
                    true,
                ),
                (
                    &format!("r.example/app:1@{DIGEST}"),
                    "r.example/app:2",
                    false,
                ),
                (
                    "r.example/app:1",
                    &format!("r.example/app:1@{DIGEST}"),
                    false,
                ),
            ],
        );
    }

    #[test]
    fn repositories_match_whatever_the_tag() {
        let exact = Identity::ExactRepository("v.example/app".into());
        for (identity, signed) in [
            (&Identity::MatchRepository, "r.example/app"),
            (&exact, "v.example/app"),
        ] {
            for suffix in ["", ":1", &format!("@{DIGEST}")] {
                check(
                    identity,
                    &[("r.example/app:2", &format!("{signed}{suffix}"), true)],
                );
            }
            check(
                identity,
                &[("r.example/app:2", &format!("{signed}s"), false)],
            );
        }
        check(&exact, &[("r.example/app:2", "r.example/app", false)]);
    }

    #[test]
    fn exact_reference_ignores_the_image_name() {
        let exact = Identity::ExactReference(Reference::parse("v.example/app:1").unwrap());
        check(
            &exact,
            &[
                ("r.example/x:9", "v.example/app:1", true),
                ("r.example/x:9", "v.example/app:2", false),
                ("r.example/x:9", "v.example/app", false),
            ],
        );
    }

    #[test]
    fn remap_replaces_whole_parts_of_the_name() {
        let remap = |prefix: &str, signed: &str| Identity::Remap {
            prefix: prefix.into(),
            signed_prefix: signed.into(),
        };
        check(
            &remap("m.example:5000/vendor", "vendor.example"),
            &[
                ("m.example:5000/vendor/a/b:1", "vendor.example/a/b:1", true),
                ("m.example:5000/vendor/a/b:1", "vendor.example/a/b:2", false),
                ("m.example:5000/vendors/a:1", "vendor.examples/a:1", false),
                (
                    "m.example:5000/vendors/a:1",
                    "m.example:5000/vendors/a:1",
                    true,
                ),
                ("o.example/a:1", "o.example/a:1", true),
                (
                    &format!("m.example:5000/vendor/a@{DIGEST}"),
                    "vendor.example/a:1",
                    true,
                ),
            ],
        );
        check(
            &remap("m.example/app", "v.example/product"),
            &[
                ("m.example/app:1", "v.example/product:1", true),
                ("m.example/app:1", "m.example/app:1", false),
            ],
        );
    }
}
