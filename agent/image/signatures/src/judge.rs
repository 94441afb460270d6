//! The decision: a resolved image and a policy become [`Accepted`], or an error.

use agent_image_registry::{Client, Deadline, Reference, Resolved};
use agent_keys::KeyProvider;

use super::{
    attached,
    case::{AcceptedSignature, Case, Sources},
    error::{RequirementFailure, SignatureError},
    lookaside::Lookaside,
    policy::{Requirement, SignaturePolicy},
    simple,
};

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
            let sources = Sources {
                lookaside: self.lookaside,
                keys: self.keys,
                client: self.client,
            };
            let case = Case::new(sources, reference, &resolved, deadline);
            for (requirement, number) in requirements.iter().zip(1..) {
                let met = meets(&case, requirement).map_err(|cause| SignatureError {
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

fn meets(
    case: &Case<'_>,
    requirement: &Requirement,
) -> Result<Option<AcceptedSignature>, RequirementFailure> {
    match requirement {
        Requirement::AcceptAnything => Ok(None),
        Requirement::Reject => Err(RequirementFailure::Rejected),
        Requirement::SignedBy { keys, identity } => simple::meets(case, keys, identity).map(Some),
        Requirement::SigstoreSigned { keys, identity } => {
            attached::meets(case, keys, identity).map(Some)
        }
    }
}
