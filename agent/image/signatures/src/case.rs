//! One image before the judge, and the signatures that were found for it.

use std::{
    cell::OnceCell,
    time::{SystemTime, UNIX_EPOCH},
};

use agent_image_registry::{Client, Deadline, FetchError, Original, Reference, Resolved, sentence};
use agent_keys::KeyProvider;

use super::{
    error::{Refusal, Refused, RequirementFailure},
    lookaside::Lookaside,
};

/// More signatures at one place than this are not looked at.
pub(super) const SIGNATURES_MAX: usize = 32;

/// Where signatures and keys come from.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) lookaside: Option<&'a Lookaside>,
    pub(super) keys: Option<&'a dyn KeyProvider>,
    pub(super) client: &'a Client,
}

/// A signature that met a requirement of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptedSignature {
    /// The requirement's type: `signedBy` or `sigstoreSigned`.
    pub requirement: &'static str,
    /// The signing key: an OpenPGP fingerprint, or base64 of a public key's SHA-256.
    pub signer: String,
    /// The name that was signed; a bundle names none.
    pub signed_name: Option<String>,
    /// Where the signature was found.
    pub place: String,
}

/// One image before the judge, and the signatures found so far: several
/// requirements look at the same ones.
pub(super) struct Case<'a> {
    pub(super) sources: Sources<'a>,
    pub(super) reference: &'a Reference,
    pub(super) resolved: &'a Resolved,
    pub(super) deadline: &'a Deadline,
    found: Vec<Found>,
}

/// Where an original's signatures may be, and how they are looked for there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Of the original among [`Case::originals`].
    pub(super) position: usize,
    pub(super) kind: Kind,
    pub(super) search: fn(&Case<'_>, &Original) -> Vec<Candidate>,
}

/// A kind of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Lookaside,
    Tag,
    Bundle,
}

/// What was found for one original, each place looked at once.
#[derive(Default)]
struct Found {
    lookaside: OnceCell<Vec<Candidate>>,
    tag: OnceCell<Vec<Candidate>>,
    bundle: OnceCell<Vec<Candidate>>,
}

impl Found {
    fn at(&self, kind: Kind) -> &OnceCell<Vec<Candidate>> {
        match kind {
            Kind::Lookaside => &self.lookaside,
            Kind::Tag => &self.tag,
            Kind::Bundle => &self.bundle,
        }
    }
}

/// Something that may be a signature, and where it was.
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) content: Result<Content, Refusal>,
}

/// A signature's bytes, not verified.
pub(super) enum Content {
    Simple(Vec<u8>),
    Tagged {
        payload: Vec<u8>,
        signature: Vec<u8>,
    },
    Bundle(Vec<u8>),
}

impl<'a> Case<'a> {
    pub(super) fn new(
        sources: Sources<'a>,
        reference: &'a Reference,
        resolved: &'a Resolved,
        deadline: &'a Deadline,
    ) -> Self {
        let found = resolved
            .originals
            .iter()
            .map(|_| Default::default())
            .collect();
        Self {
            sources,
            reference,
            resolved,
            deadline,
            found,
        }
    }

    /// The image's manifest and, if there is one, its index.
    pub(super) fn originals(&self) -> &'a [Original] {
        &self.resolved.originals
    }

    /// Looks through the places in turn until a candidate is accepted.
    pub(super) fn find(
        &self,
        places: &[Place],
        looked_for: &str,
        accept: impl Fn(&Candidate, &Content) -> Result<AcceptedSignature, Refusal>,
    ) -> Result<AcceptedSignature, RequirementFailure> {
        let mut refused = Vec::new();
        for place in places {
            for candidate in self.candidates(place)? {
                let verdict = candidate
                    .content
                    .as_ref()
                    .map(|content| accept(candidate, content));
                let refusal: &Refusal = match &verdict {
                    Ok(Ok(accepted)) => return Ok(accepted.clone()),
                    Ok(Err(refusal)) => refusal,
                    Err(unreadable) => unreadable,
                };
                let name = candidate.name.clone();
                refused.push(Refused {
                    name,
                    reason: sentence(refusal),
                    told: refusal.told(),
                });
            }
        }
        Err(if refused.is_empty() {
            RequirementFailure::Unsigned(looked_for.to_owned())
        } else {
            RequirementFailure::Refused(refused)
        })
    }

    fn candidates(&self, place: &Place) -> Result<&[Candidate], RequirementFailure> {
        let original = self.originals().get(place.position);
        let (Some(found), Some(original)) = (self.found.get(place.position), original) else {
            return Ok(&[]);
        };
        let cell = found.at(place.kind);
        if cell.get().is_none() {
            let found = (place.search)(self, original);
            // Out of time is no verdict about a signature.
            let timed_out = |candidate: &Candidate| {
                matches!(
                    candidate.content,
                    Err(Refusal::Fetch(
                        FetchError::Deadline(_) | FetchError::Cancelled
                    ))
                )
            };
            if found.iter().any(timed_out) {
                let over = self.deadline.check().err();
                return Err(RequirementFailure::Fetch(
                    over.map_or(FetchError::Cancelled, FetchError::from),
                ));
            }
            drop(cell.set(found));
        }
        Ok(cell.get().map_or(&[], Vec::as_slice))
    }

    /// Seconds since 1970 by the guest's clock.
    pub(super) fn now(&self) -> Result<u64, RequirementFailure> {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|since| since.as_secs())
            .map_err(|_| RequirementFailure::Clock)
    }
}
