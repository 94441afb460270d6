//! The loaded policy: everything, nothing, or what a document says.

use std::sync::{Arc, Mutex};

use thiserror::Error;

use crate::{
    asked::{Asked, Request},
    claim::{Claim, Permit, Policy},
    denied::{Code, Denied, Finding},
    document::{Document, DocumentError},
    facts,
    grants::Grants,
    pod::{PodStage, PodState},
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
            Door::Allow | Door::Deny(_) => None,
        }
    }

    /// Judges one request.
    ///
    /// # Errors
    ///
    /// [`Denied`] says what of the request the policy does not allow.
    pub fn judge<R: Request>(&self, request: R) -> Result<Permit<R>, Denied> {
        let claim = match &self.door {
            Door::Allow => Claim::default(),
            Door::Deny(reason) => return Err(closed(R::RULE, reason.clone())),
            Door::Document(policy) => judge_by(policy, R::RULE, &request)?,
        };
        Ok(Permit::new(request, Arc::clone(&self.grants), claim))
    }
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
