//! The requirement `signedBy`: simple signing with OpenPGP keys.

use agent_image_registry::Original;

use super::{
    case::{AcceptedSignature, Candidate, Case, Content, Kind, Place, SIGNATURES_MAX},
    error::{Refusal, RequirementFailure},
    identity::Identity,
    material::Material,
    openpgp::Keyring,
    payload::{self, Payload},
};

/// Finds a signature by one of the keys that is for this image under the right name.
pub(super) fn meets(
    case: &Case<'_>,
    keys: &[Material],
    identity: &Identity,
) -> Result<AcceptedSignature, RequirementFailure> {
    let now = case.now()?;
    let rings = keys
        .iter()
        .map(|key| ring(case, key, now))
        .collect::<Result<Vec<_>, _>>()?;
    let lookaside = case.sources.lookaside;
    let manifest = case.originals().first();
    let place = lookaside
        .zip(manifest)
        .and_then(|(lookaside, manifest)| lookaside.place(case.reference, &manifest.digest))
        .ok_or(RequirementFailure::NoLookaside)?;
    // skopeo signs each platform's manifest, and the index if it copies it.
    let places: Vec<_> = (0..case.originals().len())
        .map(|position| Place {
            position,
            kind: Kind::Lookaside,
            search: candidates,
        })
        .collect();
    case.find(&places, &place.name(1), |candidate, content| {
        let Content::Simple(message) = content else {
            return Err(Refusal::Unverified);
        };
        let signed = verify(&rings, message, now)?;
        let payload = Payload::parse(&signed.content, payload::Kind::Simple)?;
        if !case
            .originals()
            .iter()
            .any(|original| original.digest == payload.digest)
        {
            return Err(Refusal::Digest(payload.digest));
        }
        if !identity.allows(case.reference, &payload.reference) {
            return Err(Refusal::Name {
                signed: super::shown::shown(&payload.reference),
                demand: identity.demand(case.reference),
            });
        }
        Ok(AcceptedSignature {
            requirement: "signedBy",
            signer: signed.signer,
            signed_name: Some(payload.reference),
            place: candidate.name.clone(),
        })
    })
}

fn ring(case: &Case<'_>, key: &Material, now: u64) -> Result<Keyring, RequirementFailure> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RequirementFailure::Key {
        name: key.to_string(),
        source,
    };
    let bytes = key
        .load(case.sources.keys)
        .map_err(|error| failed(error.into()))?;
    Keyring::parse(&bytes, now).map_err(|error| failed(error.into()))
}

/// The verdict of the ring that knows the signer, if one does.
fn verify(rings: &[Keyring], message: &[u8], now: u64) -> Result<super::openpgp::Signed, Refusal> {
    let mut failure = Refusal::Unverified;
    for ring in rings {
        match ring.verify(message, now) {
            Ok(signed) => return Ok(signed),
            Err(error @ super::openpgp::OpenPgpError::UnknownKey(_))
                if !matches!(failure, Refusal::Unverified) =>
            {
                drop(error);
            }
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

/// All signatures that the lookaside store has of one manifest.
pub(super) fn candidates(case: &Case<'_>, original: &Original) -> Vec<Candidate> {
    let mut found = Vec::new();
    let lookaside = case.sources.lookaside;
    let Some(place) =
        lookaside.and_then(|lookaside| lookaside.place(case.reference, &original.digest))
    else {
        return found;
    };
    for number in 1..=SIGNATURES_MAX {
        let content = match place.read(number, case.sources.client, case.deadline) {
            Ok(None) => return found,
            Ok(Some(bytes)) => Ok(Content::Simple(bytes)),
            Err(refusal) => Err(refusal),
        };
        let unreadable = content.is_err();
        let name = place.name(number);
        found.push(Candidate { name, content });
        if unreadable {
            return found;
        }
    }
    found.push(Candidate {
        name: place.name(SIGNATURES_MAX + 1),
        content: Err(Refusal::TooMany(SIGNATURES_MAX)),
    });
    found
}
