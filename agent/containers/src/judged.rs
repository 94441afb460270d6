//! What the policy decided of a container that is being made, in the place of what the host
//! asked for.

use agent_requests::ImagePull;
use agent_workload::{Described, WorkloadError};
use oci_spec::runtime::{Process, Spec};
use policy_engine::{AskedUser, Claim, Denied, Finished, Grants, OfImage, environment::PodFacts};

use crate::create_error::CreateError;

/// What was decided, and what remains to be.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) grants: &'a Grants,
    pub(crate) claim: &'a Claim,
}

impl Judge<'_> {
    /// The image that the policy names, whatever the host asked for.
    pub(crate) fn image(self, asked: ImagePull) -> ImagePull {
        match self.claim.declared() {
            Some((_, container)) => ImagePull::Reference(container.image.clone()),
            None => asked,
        }
    }

    /// Puts the guest's own filter of system calls in the place of the host's, if the policy
    /// says so.
    pub(crate) fn take_filter(self, spec: &mut Spec) -> Result<(), CreateError> {
        let declared = self.claim.declared();
        let filter = declared.and_then(|(document, container)| container.filter(&document.pod));
        let Some((filter, linux)) = filter.zip(spec.linux_mut().as_mut()) else {
            return Ok(());
        };
        let filter = serde_json::from_value(filter).map_err(WorkloadError::Json)?;
        linux.set_seccomp(Some(filter));
        Ok(())
    }

    /// Has the process judged that was made of all that is known.
    pub(crate) fn process(
        self,
        described: &Described,
        process: &Process,
        (facts, image, user): (&PodFacts, &OfImage, &AskedUser),
    ) -> Result<(), Denied> {
        self.claim.judge_process(Finished {
            workload: &described.workload,
            environment: process.env().as_deref().unwrap_or_default(),
            facts,
            image,
            user,
        })
    }
}
