//! What a decision does to the pod's state: held while the request is acted on, then kept or
//! undone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    asked::Finished,
    denied::{Denied, Finding},
    document::{Container, Document},
    facts,
    grants::Grants,
    pod::{First, Phase, PodStage, PodState, at},
    rego,
};

/// A document in force, and what its pod did so far.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) document: Document,
    pub(crate) state: Mutex<PodState>,
}

impl Policy {
    pub(crate) fn state(&self) -> MutexGuard<'_, PodState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Proof that the policy allowed this request, and the only way to its content.
#[derive(Debug)]
pub struct Permit<R> {
    request: R,
    grants: Arc<Grants>,
    claim: Claim,
}

impl<R> Permit<R> {
    pub(crate) fn new(request: R, grants: Arc<Grants>, claim: Claim) -> Self {
        Self {
            request,
            grants,
            claim,
        }
    }

    /// The request that was allowed.
    #[must_use]
    pub fn request(&self) -> &R {
        &self.request
    }

    /// What may be done for it beyond what every guest allows.
    #[must_use]
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Gives up the proof for a request that changes nothing in the pod's state.
    #[must_use]
    pub fn into_request(self) -> R {
        self.request
    }

    /// Takes the proof apart. What the decision did to the pod's state is undone unless the
    /// claim is committed.
    #[must_use]
    pub fn into_parts(self) -> (R, Claim) {
        (self.request, self.claim)
    }
}

/// What a request changes in the state, for as long as it is not certain.
#[derive(Debug, Default)]
pub struct Claim {
    held: Option<Held>,
    /// What a Kata-style policy remembers of it; undone when it is dropped.
    kata: Option<rego::Allowed>,
}

#[derive(Debug)]
struct Held {
    policy: Arc<Policy>,
    what: What,
}

/// What is undone or kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The pod is being set up.
    Sandbox,
    /// A container is being made; the place is its number in the document.
    Container { id: String, number: Option<usize> },
    /// It is being started.
    Start(String),
    /// It is being removed.
    Remove(String),
}

impl Claim {
    pub(crate) fn of(policy: &Arc<Policy>, what: What) -> Self {
        let policy = Arc::clone(policy);
        Self {
            held: Some(Held { policy, what }),
            kata: None,
        }
    }

    pub(crate) fn of_kata(allowed: rego::Allowed) -> Self {
        Self {
            held: None,
            kata: Some(allowed),
        }
    }

    /// The container of the document that is being made; none without a document, and for the
    /// pause container.
    #[must_use]
    pub fn declared(&self) -> Option<(&Document, &Container)> {
        let Held { policy, what } = self.held.as_ref()?;
        match what {
            What::Container {
                number: Some(number),
                ..
            } => Some((&policy.document, at(&policy.document, *number)?)),
            _ => None,
        }
    }

    /// Judges the process of the container that is being made: the second permit.
    ///
    /// # Errors
    ///
    /// [`Denied`] says what the policy does not allow of it.
    pub fn judge_process(&self, finished: Finished<'_>) -> Result<(), Denied> {
        let Some((held, document, container)) = self.container() else {
            return Ok(());
        };
        let mut state = held.policy.state();
        let found = facts::of_process(document, container, &state.hostname, finished);
        facts::decide("ContainerProcess", found)
            .map_err(|finding| denied("CreateContainerRequest", finding, container))?;
        if let What::Container { id, .. } = &held.what
            && let Some(live) = state.live.get_mut(id)
        {
            live.first = First {
                user: finished.user.clone(),
                home: finished.image.home.clone(),
            };
        }
        Ok(())
    }

    /// Judges files of the host that the container is about to see at a destination, by their
    /// digest in hexadecimal.
    ///
    /// # Errors
    ///
    /// [`Denied`] when the document has another digest.
    pub fn judge_files(&self, at: &str, digest: &str) -> Result<(), Denied> {
        let Some((_, _, container)) = self.container() else {
            return Ok(());
        };
        facts::decide("ContainerFiles", facts::of_files(container, at, digest))
            .map_err(|finding| denied("CreateContainerRequest", finding, container))
    }

    fn container(&self) -> Option<(&Held, &Document, &Container)> {
        let held = self.held.as_ref()?;
        let (document, container) = self.declared()?;
        Some((held, document, container))
    }

    /// Keeps what the request changed: it was done.
    #[must_use = "a container's place says when it ends"]
    pub fn commit(mut self) -> Place {
        if let Some(allowed) = self.kata.take() {
            allowed.commit();
        }
        let Some(held) = self.held.take() else {
            return Place::default();
        };
        let mut state = held.policy.state();
        let place = match &held.what {
            What::Sandbox => {
                if state.stage == PodStage::BeingMade {
                    state.stage = PodStage::Runs;
                }
                None
            }
            What::Container { id, .. } => {
                state.step(id, Phase::Claimed, Phase::Waits);
                Some(id.clone())
            }
            What::Start(id) => {
                state.step(id, Phase::Starts, Phase::Runs);
                None
            }
            What::Remove(id) => {
                state.live.remove(id);
                None
            }
        };
        drop(state);
        Place {
            of: place.map(|id| (Arc::clone(&held.policy), id)),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let mut state = held.policy.state();
        match &held.what {
            What::Sandbox => {
                if state.stage == PodStage::BeingMade {
                    state.stage = PodStage::New;
                }
            }
            What::Container { id, .. } => state.give_back(id),
            What::Start(id) => state.step(id, Phase::Starts, Phase::Waits),
            What::Remove(_) => {}
        }
    }
}

/// A container's place in the pod's state, from when it is made.
#[derive(Debug, Default)]
pub struct Place {
    of: Option<(Arc<Policy>, String)>,
}

impl Place {
    /// The container's process has ended; `well` if with the exit status 0.
    pub fn ended(&self, well: bool) {
        if let Some((policy, id)) = &self.of {
            policy.state().ended(id, well);
        }
    }
}

fn denied(rule: &'static str, finding: Finding, container: &Container) -> Denied {
    Denied::new(rule, finding).in_container(Some(&container.name))
}
