//! `policy.json`: which images need which signatures.
//!
//! Format: `containers-policy.json(5)`, the transport `docker` of it; what it says of
//! other transports must be well-formed, and then means nothing here. As there, only
//! the most specific scope counts, all of its requirements must be met, and what is
//! not understood is an error, because a policy that is half read protects nothing.

use std::collections::BTreeMap;

use agent_documents::parse_json;
use agent_image_registry::{Reference, UniqueMap};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    identity::{Identity, RawIdentity},
    material::Material,
    shown::shown,
};

/// Larger than any policy that people can still review.
const SIZE_MAX: usize = 1024 * 1024;
const REQUIREMENTS_MAX: usize = 32;
const KEYS_MAX: usize = 64;

/// Which images need which signatures: a parsed `policy.json`.
///
/// Requirements: `insecureAcceptAnything`, `reject`, `signedBy` with `GPGKeys`, and
/// `sigstoreSigned` with keys; those with certificates or logs are refused. A key is
/// given by `keyPath` (an absolute path, `file:///path` or a resource of the key
/// broker, `kbs:///repository/type/tag`), `keyPaths`, `keyData` (base64, for
/// cosign's keys also PEM as it is) or `keyDatas`. Keys given by path are read at each
/// pull. All six identities are known.
///
/// Two rules differ from `containers-policy.json(5)`. A `sigstoreSigned` without
/// `signedIdentity` wants `matchRepoDigestOrExact` as there, but takes a signature that
/// names a repository alone, as cosign's do, for any image of that repository. And
/// under `matchRepoDigestOrExact` an image named by tag and digest needs a signature for
/// the tag.
#[derive(Debug, Clone)]
pub struct SignaturePolicy {
    default: Vec<Requirement>,
    scopes: BTreeMap<String, Vec<Requirement>>,
}

/// One demand on an image.
#[derive(Debug, Clone)]
pub(super) enum Requirement {
    AcceptAnything,
    Reject,
    /// Simple signing by one of these OpenPGP keys.
    SignedBy {
        keys: Vec<Material>,
        identity: Identity,
    },
    /// A cosign signature by one of these keys.
    SigstoreSigned {
        keys: Vec<Material>,
        identity: Identity,
    },
}

impl Requirement {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::AcceptAnything => "insecureAcceptAnything",
            Self::Reject => "reject",
            Self::SignedBy { .. } => "signedBy",
            Self::SigstoreSigned { .. } => "sigstoreSigned",
        }
    }
}

/// Why a text is not a signature policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// More bytes than are read.
    #[error("the signature policy has {0} bytes; at most {SIZE_MAX} are supported")]
    Size(usize),
    /// Not JSON of the right shape.
    #[error("the signature policy cannot be read")]
    Json(#[source] serde_json::Error),
    /// A list that demands nothing.
    #[error(
        "the signature policy's {0} has no requirement; to accept everything, say `insecureAcceptAnything`"
    )]
    Empty(String),
    /// A list longer than supported.
    #[error("the signature policy's {0} has more than {REQUIREMENTS_MAX} requirements")]
    TooMany(String),
    /// A scope that no image can be in.
    #[error("the signature policy's {0} is no scope: only `*.domain` may have a wildcard")]
    Wildcard(String),
    /// A requirement that is not understood.
    #[error("requirement {number} of the signature policy's {scope} cannot be used: {reason}")]
    Requirement {
        /// Of which scope.
        scope: String,
        /// Counted from 1.
        number: usize,
        /// Why not.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    default: Vec<RawRequirement>,
    #[serde(default)]
    transports: UniqueMap<UniqueMap<Vec<RawRequirement>>>,
}

/// All members of all kinds of requirements.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRequirement {
    #[serde(rename = "type")]
    kind: String,
    key_type: Option<String>,
    key_path: Option<String>,
    key_paths: Option<Vec<String>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    signed_identity: Option<RawIdentity>,
    fulcio: Option<IgnoredAny>,
    pki: Option<IgnoredAny>,
    rekor_public_key_path: Option<IgnoredAny>,
    rekor_public_key_paths: Option<IgnoredAny>,
    rekor_public_key_data: Option<IgnoredAny>,
    rekor_public_key_datas: Option<IgnoredAny>,
}

impl SignaturePolicy {
    /// Parses a `policy.json`.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn parse(json: &[u8]) -> Result<Self, PolicyError> {
        if json.len() > SIZE_MAX {
            return Err(PolicyError::Size(json.len()));
        }
        let raw: Raw = parse_json(json).map_err(PolicyError::Json)?;
        let default = requirements("default", raw.default)?;
        let mut scopes = BTreeMap::new();
        for (transport, lists) in raw.transports.0 {
            for (scope, list) in lists.0 {
                let name = format!("scope `{transport}:{scope}`");
                let list = requirements(&name, list)?;
                if transport != "docker" {
                    continue;
                }
                if scope.strip_prefix("*.").unwrap_or(&scope).contains('*') {
                    return Err(PolicyError::Wildcard(name));
                }
                scopes.insert(scope, list);
            }
        }
        Ok(Self { default, scopes })
    }

    /// The requirements on an image, and the scope they are from.
    pub(super) fn of(&self, reference: &Reference) -> (String, &[Requirement]) {
        let found = scopes_of(reference)
            .into_iter()
            .chain([String::new()])
            .find_map(|scope| self.scopes.get_key_value(&scope));
        match found {
            Some((scope, list)) => (format!("scope `docker:{scope}`"), list),
            None => ("default".to_owned(), &self.default),
        }
    }
}

/// The scopes that an image is in, most specific first: itself, its repository, its
/// namespaces, its registry, and the registry's domains.
pub(super) fn scopes_of(reference: &Reference) -> Vec<String> {
    let name = reference.name();
    let mut scopes = vec![reference.to_string(), name.clone()];
    let mut rest = name.as_str();
    while let Some((parent, _)) = rest.rsplit_once('/') {
        scopes.push(parent.to_owned());
        rest = parent;
    }
    let mut domain = match rest.strip_prefix('[') {
        Some(_) => "",
        None => rest.split(':').next().unwrap_or(""),
    };
    while let Some((_, parent)) = domain.split_once('.') {
        scopes.push(format!("*.{parent}"));
        domain = parent;
    }
    scopes
}

fn requirements(scope: &str, list: Vec<RawRequirement>) -> Result<Vec<Requirement>, PolicyError> {
    if list.is_empty() {
        return Err(PolicyError::Empty(scope.to_owned()));
    }
    if list.len() > REQUIREMENTS_MAX {
        return Err(PolicyError::TooMany(scope.to_owned()));
    }
    let numbered = list.into_iter().zip(1..);
    numbered
        .map(|(raw, number)| {
            raw.requirement()
                .map_err(|reason| PolicyError::Requirement {
                    scope: scope.to_owned(),
                    number,
                    reason,
                })
        })
        .collect()
}

impl RawRequirement {
    fn requirement(self) -> Result<Requirement, String> {
        if !self.is_keyed() {
            return Err(
                "keyless signatures (`fulcio`, `pki`, `rekor…`) are not supported, because they \
                need trust in a service and in the clock; sign with a key"
                    .to_owned(),
            );
        }
        match self.kind.as_str() {
            "insecureAcceptAnything" => self.bare(Requirement::AcceptAnything),
            "reject" => self.bare(Requirement::Reject),
            "signedBy" => match self.key_type.as_deref() {
                Some("GPGKeys") => Ok(Requirement::SignedBy {
                    keys: self.materials()?,
                    identity: self
                        .signed_identity
                        .map_or(Ok(Identity::MatchRepoDigestOrExact), RawIdentity::identity)?,
                }),
                Some(other) => Err(format!(
                    "`keyType` is `{}`, but only `GPGKeys` is supported",
                    shown(other)
                )),
                None => Err("`keyType` is missing; it must be `GPGKeys`".to_owned()),
            },
            "sigstoreSigned" if self.key_type.is_some() => {
                Err("`keyType` does not belong to `sigstoreSigned`".to_owned())
            }
            "sigstoreSigned" => Ok(Requirement::SigstoreSigned {
                keys: self.materials()?,
                identity: self
                    .signed_identity
                    .map_or(Ok(Identity::SigstoreDefault), RawIdentity::identity)?,
            }),
            other => Err(format!("its type `{}` is not known", shown(other))),
        }
    }

    fn is_keyed(&self) -> bool {
        [
            &self.fulcio,
            &self.pki,
            &self.rekor_public_key_path,
            &self.rekor_public_key_paths,
            &self.rekor_public_key_data,
            &self.rekor_public_key_datas,
        ]
        .into_iter()
        .all(Option::is_none)
    }

    /// A requirement that has no other members.
    fn bare(self, requirement: Requirement) -> Result<Requirement, String> {
        let bare = self.key_type.is_none()
            && self.key_path.is_none()
            && self.key_paths.is_none()
            && self.key_data.is_none()
            && self.key_datas.is_none()
            && self.signed_identity.is_none();
        if !bare {
            return Err(format!("`{}` has no other members", requirement.kind()));
        }
        Ok(requirement)
    }

    fn materials(&self) -> Result<Vec<Material>, String> {
        let list = |one: &Option<String>, many: &Option<Vec<String>>| {
            one.iter()
                .chain(many.iter().flatten())
                .cloned()
                .collect::<Vec<_>>()
        };
        let given = [
            self.key_path.is_some(),
            self.key_paths.is_some(),
            self.key_data.is_some(),
            self.key_datas.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err(
                "exactly one of `keyPath`, `keyPaths`, `keyData` and `keyDatas` must be given"
                    .to_owned(),
            );
        }
        let paths = list(&self.key_path, &self.key_paths);
        let inline = list(&self.key_data, &self.key_datas);
        let keys: Vec<Material> = paths
            .iter()
            .map(|path| Material::at(path))
            .chain(
                inline
                    .iter()
                    .zip(1..)
                    .map(|(text, number)| Material::inline(text, number)),
            )
            .collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err("its list of keys is empty".to_owned()),
            1..=KEYS_MAX => Ok(keys),
            count => Err(format!(
                "it has {count} keys; at most {KEYS_MAX} are supported"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
