//! The loaded policy: everything, nothing, or what a document says.

use std::sync::{Arc, Mutex};

use protobuf::MessageDyn;
use thiserror::Error;

use crate::{
    asked::{Asked, Request},
    claim::{Claim, Permit, Policy},
    denied::{Code, Denied, Finding},
    document::{Document, DocumentError},
    facts,
    grants::Grants,
    pod::{PodStage, PodState},
    rego::{self, Prepared, Refusal},
    rules,
};

/// Why a document is not in force.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It is no document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It was written for other rules.
    #[error(
        "the policy document was written for other rules than this guest's, whose digest is {0}"
    )]
    Rules(String),
}

#[derive(Debug, Clone)]
enum Door {
    Allow,
    Deny(Option<Arc<str>>),
    Document(Arc<Policy>),
    Kata(rego::Policy),
}

/// The loaded policy.
#[derive(Debug, Clone)]
pub struct Engine {
    door: Door,
    grants: Arc<Grants>,
}

impl Engine {
    fn new(door: Door, grants: Grants) -> Self {
        Self {
            door,
            grants: Arc::new(grants),
        }
    }

    /// An engine that denies everything: what holds until a policy is loaded.
    #[must_use]
    pub fn deny_all() -> Self {
        Self::new(Door::Deny(None), Grants::none())
    }

    /// An engine that denies everything and says why, in one sentence for the owner.
    #[must_use]
    pub fn deny_all_because(reason: &str) -> Self {
        Self::new(Door::Deny(Some(reason.into())), Grants::none())
    }

    /// An engine that allows everything, for guests without a policy.
    #[must_use]
    pub fn allow_all() -> Self {
        Self::new(Door::Allow, Grants::without_policy())
    }

    /// An engine that judges by a document.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the text is none, or names other rules.
    pub fn of_document(text: &[u8]) -> Result<Self, LoadError> {
        let document = Document::parse(text)?;
        let digest = rules::rules_digest_hex();
        if !document.rules.contains(&digest) {
            return Err(LoadError::Rules(digest));
        }
        let grants = Grants::from(&document);
        let policy = Policy {
            document,
            state: Mutex::new(PodState::default()),
        };
        Ok(Self::new(Door::Document(Arc::new(policy)), grants))
    }

    /// An engine that judges by a Kata-style policy. What such a policy does not know is granted
    /// as without a policy.
    #[must_use]
    pub fn of_kata_policy(policy: rego::Policy) -> Self {
        Self::new(Door::Kata(policy), Grants::without_policy())
    }

    /// The same, with these grants in place of its own.
    #[must_use]
    pub fn granting(mut self, grants: Grants) -> Self {
        self.grants = Arc::new(grants);
        self
    }

    /// What may be done beyond what every guest allows, whoever asks.
    #[must_use]
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// The owner's count of releases of the policy, if it has one.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        match &self.door {
            Door::Document(policy) => Some(policy.document.version),
            Door::Allow | Door::Deny(_) | Door::Kata(_) => None,
        }
    }

    /// The images that a document names, each once, in the order of its containers; those of
    /// debug containers come only when somebody debugs. A Kata-style policy names none that can
    /// be told before a container is asked for.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        let Door::Document(policy) = &self.door else {
            return Vec::new();
        };
        let mut images = Vec::new();
        for container in &policy.document.containers {
            if container.target.is_none() && !images.contains(&container.image) {
                images.push(container.image.clone());
            }
        }
        images
    }

    /// What a Kata-style policy is to be asked about a message, before it is parsed; nothing for
    /// other policies.
    #[must_use]
    pub fn prepare<R: Request>(&self, message: &dyn MessageDyn) -> Prepared {
        match &self.door {
            Door::Kata(policy) => policy.prepare(R::RULE, message),
            Door::Allow | Door::Deny(_) | Door::Document(_) => Prepared::default(),
        }
    }

    /// Judges one request.
    ///
    /// # Errors
    ///
    /// [`Denied`] says what of the request the policy does not allow. A Kata-style policy allows
    /// nothing that was not [prepared](Engine::prepare).
    pub fn judge<R: Request>(&self, request: R) -> Result<Permit<R>, Denied> {
        self.judge_prepared(request, Prepared::default())
    }

    /// Judges one request, with what a Kata-style policy is asked about its message. It can take
    /// long if the prepared question [waits](Prepared::waits).
    ///
    /// # Errors
    ///
    /// [`Denied`] says what of the request the policy does not allow.
    pub fn judge_prepared<R: Request>(
        &self,
        request: R,
        prepared: Prepared,
    ) -> Result<Permit<R>, Denied> {
        let claim = match &self.door {
            Door::Allow => Claim::default(),
            Door::Deny(reason) => return Err(closed(R::RULE, reason.clone())),
            Door::Document(policy) => judge_by(policy, R::RULE, &request)?,
            Door::Kata(policy) => judge_by_kata(policy, R::RULE, prepared)?,
        };
        Ok(Permit::new(request, Arc::clone(&self.grants), claim))
    }
}

/// Requests that are acted on with their claim, and keep what they change when it is done. What
/// others change is kept when it is decided, as in Kata's agent.
const HELD: [&str; 4] = [
    "CreateSandboxRequest",
    "CreateContainerRequest",
    "StartContainerRequest",
    "RemoveContainerRequest",
];

fn judge_by_kata(
    policy: &rego::Policy,
    rule: &'static str,
    prepared: Prepared,
) -> Result<Claim, Denied> {
    let decided = policy.decide_prepared(rule, prepared);
    let allowed = decided.map_err(|Refusal { rule, why }| Denied {
        reason: Some(why.to_string().into()),
        ..Denied::new(rule, Finding::of(Code::KataPolicy))
    })?;
    if HELD.contains(&rule) {
        return Ok(Claim::of_kata(allowed));
    }
    allowed.commit();
    Ok(Claim::default())
}

fn closed(rule: &'static str, reason: Option<Arc<str>>) -> Denied {
    Denied {
        reason,
        ..Denied::new(rule, Finding::of(Code::Closed))
    }
}

fn judge_by<R: Request>(
    policy: &Arc<Policy>,
    rule: &'static str,
    request: &R,
) -> Result<Claim, Denied> {
    match rules::constant(rule) {
        Some(false) => return Err(Denied::new(rule, Finding::of(Code::NotAllowed))),
        Some(true) => {
            if request.asked() == Asked::Destroy {
                policy.state().stage = PodStage::Ended;
            }
            return Ok(Claim::default());
        }
        None => {}
    }
    // Held to the end of the decision and of what it changes, and not longer.
    let mut state = policy.state();
    let asked = request.asked();
    let (found, container) = facts::of_request(&policy.document, &state, &asked);
    if let Err(finding) = facts::decide(rule, found) {
        return Err(Denied::new(rule, finding).in_container(container));
    }
    let what = facts::apply(&policy.document, &mut state, &asked);
    drop(state);
    Ok(what.map_or_else(Claim::default, |what| Claim::of(policy, what)))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
