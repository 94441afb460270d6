//! The requirement `sigstoreSigned`: cosign's signatures, kept in the image's repository.
//!
//! cosign 2 writes a tag `sha256-<hex>.sig`, whose manifest has a layer for each
//! signature; cosign 3 writes bundles, each in an artifact that refers to the image.
//! Both are looked for at the digest the reference led to first, which is an index's
//! for an image of several platforms, and then at the platform's manifest.

use agent_image_registry::{
    ACCEPT, Answer, Descriptor, Document, FetchError, Manifest, Original, Request,
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    bundle,
    case::{AcceptedSignature, Candidate, Case, Content, Kind, Place, SIGNATURES_MAX},
    error::{Refusal, RequirementFailure},
    identity::Identity,
    material::Material,
    payload::{self, Payload},
    public_key::PublicKey,
    referrers,
};

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// What registries must accept as a manifest.
const MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// A payload has some hundred bytes, a bundle with certificates some ten thousand.
const SIGNATURE_MAX_BYTES: u64 = 256 * 1024;

/// Finds a signature by one of the keys that is for this image under the right name.
pub(super) fn meets(
    case: &Case<'_>,
    keys: &[Material],
    identity: &Identity,
) -> Result<AcceptedSignature, RequirementFailure> {
    let keys = keys
        .iter()
        .map(|key| public_key(case, key))
        .collect::<Result<Vec<_>, _>>()?;
    let places: Vec<_> = (0..case.originals().len())
        .rev()
        .flat_map(|position| {
            let place = |kind, search| Place {
                position,
                kind,
                search,
            };
            [
                place(Kind::Tag, tagged as fn(&Case<'_>, &Original) -> _),
                place(Kind::Bundle, bundles),
            ]
        })
        .collect();
    let looked_for = case
        .originals()
        .last()
        .map(|top| {
            format!(
                "the tag `{}` and Sigstore bundles in `{}`",
                tag(top),
                case.reference.name()
            )
        })
        .unwrap_or_default();
    case.find(&places, &looked_for, |candidate, content| {
        let (key, signed_name) = match content {
            Content::Tagged { payload, signature } => {
                let (key, name) = verify(case, &keys, payload, signature, identity)?;
                (key, Some(name))
            }
            Content::Bundle(bytes) => {
                let key = bundle::verify(bytes, &keys, case.originals())?;
                // A bundle names a digest alone; its repository is where it was found.
                let found_in = case.reference.name();
                if !identity.allows(case.reference, &found_in) {
                    return Err(Refusal::Unnamed(identity.demand(case.reference)));
                }
                (key, None)
            }
            Content::Simple(_) => return Err(Refusal::Unverified),
        };
        Ok(AcceptedSignature {
            requirement: "sigstoreSigned",
            signer: key.name().to_owned(),
            signed_name,
            place: candidate.name.clone(),
        })
    })
}

fn public_key(case: &Case<'_>, key: &Material) -> Result<PublicKey, RequirementFailure> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RequirementFailure::Key {
        name: key.to_string(),
        source,
    };
    let bytes = key
        .load(case.sources.keys)
        .map_err(|error| failed(error.into()))?;
    PublicKey::parse(&bytes).map_err(|error| failed(error.into()))
}

/// The key that signed this payload, which is for this image, and the name in it.
fn verify<'k>(
    case: &Case<'_>,
    keys: &'k [PublicKey],
    payload: &[u8],
    signature: &[u8],
    identity: &Identity,
) -> Result<(&'k PublicKey, String), Refusal> {
    let key = keys
        .iter()
        .find(|key| key.verifies(payload, signature))
        .ok_or(Refusal::Unverified)?;
    let payload = Payload::parse(payload, payload::Kind::Cosign)?;
    if !case
        .originals()
        .iter()
        .any(|original| original.digest == payload.digest)
    {
        return Err(Refusal::Digest(payload.digest));
    }
    if identity.allows(case.reference, &payload.reference) {
        return Ok((key, payload.reference));
    }
    Err(Refusal::Name {
        signed: super::shown::shown(&payload.reference),
        demand: identity.demand(case.reference),
    })
}

fn tag(original: &Original) -> String {
    format!("{}.sig", original.digest.as_str().replacen(':', "-", 1))
}

/// The signatures in the tag beside an original.
pub(super) fn tagged(case: &Case<'_>, original: &Original) -> Vec<Candidate> {
    let tag = tag(original);
    let answer = match case.manifest(&tag) {
        Ok(Some(answer)) => answer,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![unreadable(&tag, error.into())],
    };
    match signature_layers(&answer) {
        Err(refusal) => vec![unreadable(&tag, refusal)],
        Ok(layers) => candidates(&tag, &layers, PAYLOAD_TYPE, |layer| {
            let signature = signature_of(layer)?;
            let payload = case.blob(layer)?;
            Ok(Content::Tagged { payload, signature })
        }),
    }
}

/// The bundles that refer to an original.
pub(super) fn bundles(case: &Case<'_>, original: &Original) -> Vec<Candidate> {
    let found = match referrers::of(case, &original.digest) {
        Ok(found) => found,
        Err(error) => return vec![unreadable("referrers", error.into())],
    };
    let mut candidates = Vec::new();
    for digest in found {
        let name = digest.to_string();
        let manifest = case
            .manifest(digest.as_str())
            .map_err(Refusal::from)
            .and_then(|answer| {
                let answer = answer.ok_or(Refusal::NoManifest)?;
                if !digest.is_of(&answer.body) {
                    return Err(Refusal::Content(digest.clone()));
                }
                signature_layers(&answer)
            });
        match manifest {
            Err(refusal) => candidates.push(unreadable(&name, refusal)),
            Ok(layers) => candidates.extend(self::candidates(
                &name,
                &layers,
                bundle::MEDIA_TYPE,
                |layer| case.blob(layer).map(Content::Bundle),
            )),
        }
    }
    candidates
}

fn candidates(
    place: &str,
    layers: &[Descriptor],
    media_type: &str,
    read: impl Fn(&Descriptor) -> Result<Content, Refusal>,
) -> Vec<Candidate> {
    let fitting = layers.iter().filter(|layer| layer.media_type == media_type);
    let mut found: Vec<Candidate> = fitting
        .take(SIGNATURES_MAX + 1)
        .enumerate()
        .map(|(index, layer)| Candidate {
            name: format!("{place} layer {}", index + 1),
            content: match index {
                SIGNATURES_MAX => Err(Refusal::TooMany(SIGNATURES_MAX)),
                _ => read(layer),
            },
        })
        .collect();
    if found.is_empty() {
        found.push(unreadable(place, Refusal::NoManifest));
    }
    found
}

fn unreadable(name: &str, refusal: Refusal) -> Candidate {
    Candidate {
        name: name.to_owned(),
        content: Err(refusal),
    }
}

/// The layers of a manifest, which is not an index.
fn signature_layers(answer: &Answer) -> Result<Vec<Descriptor>, Refusal> {
    match Document::parse(&answer.body, answer.content_type.as_deref())? {
        Document::Manifest(Manifest { layers, .. }) => Ok(layers),
        Document::Index(_) => Err(Refusal::NoManifest),
    }
}

/// The signature in a layer's annotation; some registries break long lines.
fn signature_of(layer: &Descriptor) -> Result<Vec<u8>, Refusal> {
    let text = layer.annotations.get(SIGNATURE_ANNOTATION);
    let joined = text.map(|text| text.replace(['\r', '\n'], ""));
    joined
        .and_then(|text| STANDARD.decode(text).ok())
        .filter(|signature| !signature.is_empty())
        .ok_or(Refusal::Annotation(SIGNATURE_ANNOTATION))
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_manifest(bytes: &[u8]) {
    let answer = Answer {
        body: bytes.to_vec(),
        content_type: None,
        digest: None,
        link: None,
    };
    for layer in signature_layers(&answer).unwrap_or_default() {
        let _ = signature_of(&layer);
    }
}

impl Case<'_> {
    /// A manifest of the image's repository by tag or digest; `None` if there is none.
    pub(super) fn manifest(&self, version: &str) -> Result<Option<Answer>, FetchError> {
        let path = format!("manifests/{version}");
        match self.fetch(&path, Some(ACCEPT), MANIFEST_MAX_BYTES) {
            Ok(answer) => Ok(Some(answer)),
            Err(FetchError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Something short of the repository that the image came from.
    pub(super) fn fetch(
        &self,
        path: &str,
        accept: Option<&str>,
        limit: u64,
    ) -> Result<Answer, FetchError> {
        let request = Request {
            source: &self.resolved.source,
            path,
            what: "signature",
            accept,
            offset: 0,
        };
        self.sources.client.get(request, limit, self.deadline)
    }

    fn blob(&self, layer: &Descriptor) -> Result<Vec<u8>, Refusal> {
        if layer.size > SIGNATURE_MAX_BYTES {
            return Err(Refusal::Size(SIGNATURE_MAX_BYTES));
        }
        let answer = self.fetch(&format!("blobs/{}", layer.digest), None, layer.size)?;
        if !layer.digest.is_of(&answer.body) {
            return Err(Refusal::Content(layer.digest.clone()));
        }
        Ok(answer.body)
    }
}
