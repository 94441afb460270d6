//! Sessions: a nonce that answers once, and the token that an attested guest gets.
//!
//! Anybody may begin a session, so those that never finish must cost little: there are at most
//! [`WAITING_MAX`], the oldest makes room for a new one, and none lives longer than
//! [`LIFETIME`]. Attested sessions are kept apart, so that strangers cannot push them out.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;

/// Sessions whose evidence has not come yet.
pub(crate) const WAITING_MAX: usize = 8192;
/// Sessions that attested.
pub(crate) const ATTESTED_MAX: usize = 16_384;
/// How long a session lives, from its beginning.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);
const NONCE_LEN: usize = 32;
const ID_LEN: usize = 16;

/// What a session is found by: 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(String);

/// A session whose evidence may come, once.
pub(crate) struct Waiting {
    /// What the evidence must answer.
    pub(crate) nonce: [u8; NONCE_LEN],
    began: Instant,
}

/// The system gives no randomness.
#[derive(Debug, thiserror::Error)]
#[error("no session can begin, because the system gives no randomness")]
pub(crate) struct RandomnessError;

/// All sessions of a broker.
#[derive(Default)]
pub(crate) struct Sessions {
    waiting: Table<Waiting>,
    attested: Table<Arc<str>>,
}

impl SessionId {
    /// Reads one from a cookie; none if it cannot be one of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_hex = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == 2 * ID_LEN && is_hex).then(|| Self(text.to_owned()))
    }

    /// As it is in a cookie.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Sessions {
    /// Begins a session with a nonce that nobody had before.
    ///
    /// # Errors
    ///
    /// [`RandomnessError`]
    pub(crate) fn begin(
        &mut self,
        now: Instant,
    ) -> Result<(SessionId, [u8; NONCE_LEN]), RandomnessError> {
        let (mut id, mut nonce) = ([0; ID_LEN], [0; NONCE_LEN]);
        rand::fill(&mut id)
            .and_then(|()| rand::fill(&mut nonce))
            .map_err(|_| RandomnessError)?;
        let id = SessionId(hex::encode(id));
        let session = Waiting { nonce, began: now };
        self.waiting.add(id.clone(), session, now, WAITING_MAX);
        Ok((id, nonce))
    }

    /// Takes a session for its one attestation: whatever comes of it, the nonce is used.
    pub(crate) fn take(&mut self, id: &SessionId, now: Instant) -> Option<Waiting> {
        self.waiting.take(id, now)
    }

    /// Keeps the token of a session that attested. It ends when it would have ended anyway.
    pub(crate) fn attested(&mut self, id: SessionId, session: &Waiting, token: Arc<str>) {
        self.attested.add(id, token, session.began, ATTESTED_MAX);
    }

    /// The token of a session that attested.
    pub(crate) fn token(&mut self, id: &SessionId, now: Instant) -> Option<Arc<str>> {
        self.attested.find(id, now).cloned()
    }

    /// How many are waiting, and how many attested.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.waiting.entries.len(), self.attested.entries.len())
    }
}

/// Entries by id, and their order, oldest first.
struct Table<T> {
    entries: HashMap<SessionId, (Instant, T)>,
    order: VecDeque<SessionId>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Table<T> {
    fn add(&mut self, id: SessionId, entry: T, began: Instant, most: usize) {
        while self.order.len() >= most {
            self.drop_oldest();
        }
        while self.oldest_is_over(began) {
            self.drop_oldest();
        }
        self.order.push_back(id.clone());
        self.entries.insert(id, (began, entry));
    }

    fn take(&mut self, id: &SessionId, now: Instant) -> Option<T> {
        let (began, entry) = self.entries.remove(id)?;
        is_alive(began, now).then_some(entry)
    }

    fn find(&mut self, id: &SessionId, now: Instant) -> Option<&T> {
        let (began, entry) = self.entries.get(id)?;
        is_alive(*began, now).then_some(entry)
    }

    /// Also if it was taken: then only its place in the order goes.
    fn drop_oldest(&mut self) {
        if let Some(id) = self.order.pop_front() {
            self.entries.remove(&id);
        }
    }

    fn oldest_is_over(&self, now: Instant) -> bool {
        self.order.front().is_some_and(|id| {
            let entry = self.entries.get(id);
            entry.is_none_or(|(began, _)| !is_alive(*began, now))
        })
    }
}

fn is_alive(began: Instant, now: Instant) -> bool {
    now.saturating_duration_since(began) < LIFETIME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_never_finish_are_bounded_and_push_out_no_attested_one() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let (id, _) = sessions.begin(now).unwrap();
        let session = sessions.take(&id, now).unwrap();
        sessions.attested(id.clone(), &session, "token".into());
        for _ in 0..3 * WAITING_MAX {
            sessions.begin(now).unwrap();
        }
        assert_eq!(sessions.count(), (WAITING_MAX, 1));
        assert!(sessions.waiting.order.len() <= WAITING_MAX);
        assert_eq!(sessions.token(&id, now).as_deref(), Some("token"));
    }

    #[test]
    fn a_nonce_answers_once_and_not_after_its_time() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let (id, nonce) = sessions.begin(now).unwrap();
        assert_eq!(sessions.take(&id, now).unwrap().nonce, nonce);
        assert!(sessions.take(&id, now).is_none());
        let (id, _) = sessions.begin(now).unwrap();
        assert!(sessions.take(&id, now + LIFETIME).is_none());
    }

    #[test]
    fn attesting_does_not_make_a_session_longer() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let (id, _) = sessions.begin(now).unwrap();
        let later = now + LIFETIME - Duration::from_secs(1);
        let session = sessions.take(&id, later).unwrap();
        sessions.attested(id.clone(), &session, "token".into());
        assert!(sessions.token(&id, later).is_some());
        assert!(sessions.token(&id, now + LIFETIME).is_none());
    }
}
