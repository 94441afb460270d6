//! The `Authorization` headers that sources took, shared by all who ask them.
//!
//! Layers arrive here at once when a token expires: one of them renews it, the others
//! wait for that, each within its own deadline, and take what it brought. A token server
//! that is silent holds up nobody who asks another source.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Deadline, Source, auth::Authorization, deadline::Over};

/// How soon a wait notices that it is in vain.
const CANCELLED_WITHIN: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Tokens {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    known: BTreeMap<Source, Authorization>,
    renewing: BTreeSet<Source>,
}

impl State {
    fn fresh(&self, source: &Source) -> Option<String> {
        let token = self.known.get(source)?;
        token.is_fresh().then(|| token.header.clone())
    }
}

/// A header to try next, or the right to get one.
pub(super) enum Next<'a> {
    Known(String),
    Renew(Renewal<'a>),
}

/// The right to renew a source's header; others wait until it is given back.
pub(super) struct Renewal<'a> {
    tokens: &'a Tokens,
    source: &'a Source,
}

impl Tokens {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header that a source took before, if it is still fresh.
    pub(super) fn known(&self, source: &Source) -> Option<String> {
        self.state().fresh(source)
    }

    /// A header other than the refused one; waits while somebody else gets it.
    pub(super) fn next<'a>(
        &'a self,
        source: &'a Source,
        refused: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Next<'a>, Over> {
        let mut state = self.state();
        loop {
            if let Some(header) = state
                .fresh(source)
                .filter(|one| Some(one.as_str()) != refused)
            {
                return Ok(Next::Known(header));
            }
            if state.renewing.insert(source.clone()) {
                return Ok(Next::Renew(Renewal {
                    tokens: self,
                    source,
                }));
            }
            let wait = deadline.check()?.min(CANCELLED_WITHIN);
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Renewal<'_> {
    /// Shares the header that was got.
    pub(super) fn keep(self, fresh: Authorization) {
        self.tokens.state().known.insert(self.source.clone(), fresh);
    }
}

impl Drop for Renewal<'_> {
    fn drop(&mut self) {
        self.tokens.state().renewing.remove(self.source);
        self.tokens.changed.notify_all();
    }
}
