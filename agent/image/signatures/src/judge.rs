//! The decision: a resolved image and a policy become [`Accepted`], or an error.

use std::{
    cell::OnceCell,
    time::{SystemTime, UNIX_EPOCH},
};

use agent_image_registry::{Client, Deadline, FetchError, Original, Reference, Resolved, sentence};
use agent_keys::KeyProvider;

use super::{
    attached,
    error::{Refusal, Refused, RequirementFailure, SignatureError},
    lookaside::Lookaside,
    policy::{Requirement, SignaturePolicy},
    simple,
};

/// More signatures at one place than this are not looked at.
pub(super) const SIGNATURES_MAX: usize = 32;

/// An image that the policy accepts. Only [`Judge::judge`] makes one, and the layers want it.
#[derive(Debug)]
pub struct Accepted {
    resolved: Resolved,
    signatures: Vec<AcceptedSignature>,
}

impl Accepted {
    /// The image.
    #[must_use]
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The image, and the signatures that met the policy.
    #[must_use]
    pub fn into_parts(self) -> (Resolved, Vec<AcceptedSignature>) {
        (self.resolved, self.signatures)
    }
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

/// All that is needed to decide about images.
pub struct Judge<'a> {
    /// What is demanded; without it every image is accepted.
    pub policy: Option<&'a SignaturePolicy>,
    /// Where simple signatures are.
    pub lookaside: Option<&'a Lookaside>,
    /// Where keys come from that the policy names by `kbs:` URI.
    pub keys: Option<&'a dyn KeyProvider>,
    /// Asks registries and lookaside stores.
    pub client: &'a Client,
}

impl Judge<'_> {
    /// Decides about one image, by its name as the user wrote it.
    pub fn judge(
        &self,
        reference: &Reference,
        mut resolved: Resolved,
        deadline: &Deadline,
    ) -> Result<Accepted, SignatureError> {
        let mut signatures = Vec::new();
        if let Some(policy) = self.policy {
            let (scope, requirements) = policy.of(reference);
            let count = requirements.len();
            let case = Case::new(self, reference, &resolved, deadline);
            for (requirement, number) in requirements.iter().zip(1..) {
                let met = case.meets(requirement).map_err(|cause| SignatureError {
                    scope: scope.clone(),
                    number,
                    count,
                    kind: requirement.kind(),
                    cause: Box::new(cause),
                })?;
                signatures.extend(met);
            }
            tracing::info!(
                image = %reference, scope, requirements = count, signatures = signatures.len(),
                "the signature policy accepts the image"
            );
        }
        // Megabytes that nobody needs while the layers come.
        resolved.originals = Vec::new();
        Ok(Accepted {
            resolved,
            signatures,
        })
    }
}

/// One image before the judge, and the signatures found so far: several
/// requirements look at the same ones.
pub(super) struct Case<'a> {
    pub(super) judge: &'a Judge<'a>,
    pub(super) reference: &'a Reference,
    pub(super) resolved: &'a Resolved,
    pub(super) deadline: &'a Deadline,
    found: Vec<[OnceCell<Vec<Candidate>>; 3]>,
}

/// A kind of places where an original's signatures may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Lookaside = 0,
    Tag = 1,
    Bundle = 2,
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
    fn new(
        judge: &'a Judge<'a>,
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
            judge,
            reference,
            resolved,
            deadline,
            found,
        }
    }

    fn meets(
        &self,
        requirement: &Requirement,
    ) -> Result<Option<AcceptedSignature>, RequirementFailure> {
        match requirement {
            Requirement::AcceptAnything => Ok(None),
            Requirement::Reject => Err(RequirementFailure::Rejected),
            Requirement::SignedBy { keys, identity } => {
                simple::meets(self, keys, identity).map(Some)
            }
            Requirement::SigstoreSigned { keys, identity } => {
                attached::meets(self, keys, identity.as_ref()).map(Some)
            }
        }
    }

    /// The image's manifest and, if there is one, its index.
    pub(super) fn originals(&self) -> &'a [Original] {
        &self.resolved.originals
    }

    /// Looks through the places in turn until a candidate is accepted.
    pub(super) fn find(
        &self,
        places: &[(usize, Kind)],
        looked_for: &str,
        accept: impl Fn(&Candidate, &Content) -> Result<AcceptedSignature, Refusal>,
    ) -> Result<AcceptedSignature, RequirementFailure> {
        let mut refused = Vec::new();
        for (position, kind) in places {
            for candidate in self.candidates(*position, *kind)? {
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
        Err(match refused.is_empty() {
            true => RequirementFailure::Unsigned(looked_for.to_owned()),
            false => RequirementFailure::Refused(refused),
        })
    }

    fn candidates(&self, position: usize, kind: Kind) -> Result<&[Candidate], RequirementFailure> {
        let (Some(cells), Some(original)) =
            (self.found.get(position), self.originals().get(position))
        else {
            return Ok(&[]);
        };
        let cell = &cells[kind as usize];
        if cell.get().is_none() {
            let found = match kind {
                Kind::Lookaside => simple::candidates(self, original),
                Kind::Tag => attached::tagged(self, original),
                Kind::Bundle => attached::bundles(self, original),
            };
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
                let error = self.deadline.check().err();
                return Err(RequirementFailure::Fetch(
                    error.unwrap_or(FetchError::Cancelled),
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
