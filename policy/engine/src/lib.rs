//! Decides each request of the host: a permit, or a denial.
//!
//! The engine belongs to the workload's owner and distrusts the host that sends
//! the requests. It is pure: request in, decision out, no I/O.
//!
//! A request becomes usable only inside a [`Permit`], and only [`Engine::judge`]
//! makes one. An agent whose handlers take `Permit<R>` therefore cannot act on a
//! request that nobody judged: it does not compile.
//!
//! For now an engine allows everything or nothing; the owner's Rego rules come to
//! live behind the same [`Engine::judge`]. A guest that was given a policy must
//! therefore deny everything: it cannot know what the policy would allow.

mod grants;

use std::sync::Arc;

pub use grants::Grants;
use thiserror::Error;

/// A parsed request that the policy can judge.
pub trait Request {
    /// The rule that judges it: the name of the protocol's request message.
    const RULE: &'static str;
}

/// Proof that the policy allowed this request, and the only way to its content.
#[derive(Debug)]
pub struct Permit<R> {
    request: R,
    grants: Arc<Grants>,
}

impl<R> Permit<R> {
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

    /// Gives up the proof for the request.
    #[must_use]
    pub fn into_request(self) -> R {
        self.request
    }
}

/// The policy forbids the request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule} is blocked by policy{}", self.explanation())]
pub struct Denied {
    /// The rule that did not allow it.
    pub rule: &'static str,
    /// Why nothing is allowed, if that is so.
    pub reason: Option<Arc<str>>,
}

impl Denied {
    fn explanation(&self) -> String {
        let reason = self.reason.as_deref();
        reason.map_or_else(String::new, |reason| format!(": {reason}"))
    }
}

#[derive(Debug, Clone)]
enum Verdict {
    Allow,
    Deny(Option<Arc<str>>),
}

/// The loaded policy.
#[derive(Debug, Clone)]
pub struct Engine {
    default: Verdict,
    grants: Arc<Grants>,
}

impl Engine {
    /// An engine that denies everything: what holds until a policy is loaded.
    #[must_use]
    pub fn deny_all() -> Self {
        Self {
            default: Verdict::Deny(None),
            grants: Arc::new(Grants::none()),
        }
    }

    /// An engine that denies everything and says why, in one sentence for the owner.
    #[must_use]
    pub fn deny_all_because(reason: &str) -> Self {
        Self {
            default: Verdict::Deny(Some(reason.into())),
            grants: Arc::new(Grants::none()),
        }
    }

    /// An engine that allows everything, for guests without a policy.
    #[must_use]
    pub fn allow_all() -> Self {
        Self {
            default: Verdict::Allow,
            grants: Arc::new(Grants::without_policy()),
        }
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

    /// Judges one request.
    ///
    /// # Errors
    ///
    /// [`Denied`] names the rule that did not allow the request.
    pub fn judge<R: Request>(&self, request: R) -> Result<Permit<R>, Denied> {
        match &self.default {
            Verdict::Allow => Ok(Permit {
                request,
                grants: Arc::clone(&self.grants),
            }),
            Verdict::Deny(reason) => Err(Denied {
                rule: R::RULE,
                reason: reason.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct StartContainer;

    impl Request for StartContainer {
        const RULE: &'static str = "StartContainerRequest";
    }

    #[test]
    fn allow_all_permits() {
        assert!(Engine::allow_all().judge(StartContainer).is_ok());
    }

    #[test]
    fn deny_all_names_the_rule() {
        let denied = Engine::deny_all().judge(StartContainer).err();
        assert_eq!(
            denied,
            Some(Denied {
                rule: "StartContainerRequest",
                reason: None,
            })
        );
    }

    #[test]
    fn a_reason_is_told() {
        let engine = Engine::deny_all_because("no policy can be evaluated");
        assert_eq!(
            engine.judge(StartContainer).err().unwrap().to_string(),
            "StartContainerRequest is blocked by policy: no policy can be evaluated"
        );
        assert_eq!(
            Engine::deny_all()
                .judge(StartContainer)
                .err()
                .unwrap()
                .to_string(),
            "StartContainerRequest is blocked by policy"
        );
    }
}
