//! Decides each request of the host: a permit, or a denial.
//!
//! The engine belongs to the workload's owner and distrusts the host that sends
//! the requests. It is pure: request in, decision out, no I/O.
//!
//! A request becomes usable only inside a [`Permit`], and only [`Engine::judge`]
//! makes one. An agent whose handlers take `Permit<R>` therefore cannot act on a
//! request that nobody judged: it does not compile.
//!
//! For now the only engine is [`Engine::allow_all`]; the owner's Rego rules come
//! to live behind the same [`Engine::judge`].

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
}

impl<R> Permit<R> {
    /// The request that was allowed.
    #[must_use]
    pub fn request(&self) -> &R {
        &self.request
    }

    /// Gives up the proof for the request.
    #[must_use]
    pub fn into_request(self) -> R {
        self.request
    }
}

/// The policy forbids the request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule} is blocked by policy")]
pub struct Denied {
    /// The rule that did not allow it.
    pub rule: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Allow,
    Deny,
}

/// The loaded policy.
#[derive(Debug)]
pub struct Engine {
    default: Verdict,
}

impl Engine {
    /// An engine that denies everything: what holds until a policy is loaded.
    #[must_use]
    pub fn deny_all() -> Self {
        Self {
            default: Verdict::Deny,
        }
    }

    /// An engine that allows everything, for guests without a policy.
    #[must_use]
    pub fn allow_all() -> Self {
        Self {
            default: Verdict::Allow,
        }
    }

    /// Judges one request.
    ///
    /// # Errors
    ///
    /// [`Denied`] names the rule that did not allow the request.
    pub fn judge<R: Request>(&self, request: R) -> Result<Permit<R>, Denied> {
        match self.default {
            Verdict::Allow => Ok(Permit { request }),
            Verdict::Deny => Err(Denied { rule: R::RULE }),
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
                rule: "StartContainerRequest"
            })
        );
    }
}
