//! Keys from the owner's broker: one attestation for all that is asked.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agent_keys::{KeyError, KeyProvider, ResourceUri, Secret};
use agent_keys_protocol::{ResourceName, TeeKey};
use tracing::info;
use ureq::http::StatusCode;

use crate::{
    Address, Guest,
    connection::{Connection, Said, details, printable},
    session::{Failure, Session, attest, may_pass},
};

/// All that one fetch may take, with attestations and repetitions.
const PATIENCE: Duration = Duration::from_secs(90);
const TRIES_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// The owner's broker.
pub struct Broker {
    address: Address,
    guest: Guest,
    patience: Duration,
    state: Mutex<State>,
    /// Attempts to get a session that have ended.
    ended: AtomicU64,
    attested: AtomicU64,
}

#[derive(Default)]
struct State {
    tools: Option<Arc<Tools>>,
    session: Option<(u64, Arc<Session>)>,
    /// How the last attempt failed, for those who waited for it.
    failure: Option<Failure>,
}

/// Made once.
struct Tools {
    connection: Connection,
    key: TeeKey,
}

/// What a request without success asks of the guest.
enum Next {
    Fail(KeyError),
    /// The session is over, or the log has to be shown as it is now.
    AttestAgain(String),
    TryAgain(String),
}

impl Broker {
    /// A broker at an address; talks to nobody yet.
    #[must_use]
    pub fn new(address: Address, guest: Guest) -> Self {
        Self {
            address,
            guest,
            patience: PATIENCE,
            state: Mutex::default(),
            ended: AtomicU64::new(0),
            attested: AtomicU64::new(0),
        }
    }

    /// With another time for each fetch.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How often this guest proved itself.
    #[must_use]
    pub fn attestations(&self) -> u64 {
        self.attested.load(Ordering::Relaxed)
    }

    /// A session other than `worn`; whoever comes first makes one, the others wait for it
    /// and share what came of it, success or failure.
    fn session(
        &self,
        worn: Option<u64>,
        until: Instant,
    ) -> Result<(u64, Arc<Session>, Arc<Tools>), Failure> {
        let before = self.ended.load(Ordering::SeqCst);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tools = self.tools(&mut state)?;
        if let Some((number, session)) = &state.session
            && worn != Some(*number)
            && session.until > Instant::now()
        {
            return Ok((*number, Arc::clone(session), tools));
        }
        if self.ended.load(Ordering::SeqCst) != before
            && let Some(failure) = &state.failure
        {
            return Err(failure.clone());
        }
        state.session = None;
        let made = attest(&tools.connection, &self.guest, &tools.key, until);
        let number = self.ended.fetch_add(1, Ordering::SeqCst);
        match made {
            Ok(session) => {
                let count = self.attested.fetch_add(1, Ordering::Relaxed) + 1;
                info!(count, "attested to the key broker");
                let session = Arc::new(session);
                state.session = Some((number, Arc::clone(&session)));
                state.failure = None;
                Ok((number, session, tools))
            }
            Err(failure) => {
                state.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn tools(&self, state: &mut State) -> Result<Arc<Tools>, Failure> {
        if let Some(tools) = &state.tools {
            return Ok(Arc::clone(tools));
        }
        let key = TeeKey::generate()
            .map_err(|_| Failure::Refused("there are no random numbers".into()))?;
        let connection = Connection::new(&self.address)?;
        let tools = Arc::new(Tools { connection, key });
        state.tools = Some(Arc::clone(&tools));
        Ok(tools)
    }
}

impl KeyProvider for Broker {
    /// Attests when there is no session, and once more when the broker says that the session
    /// is over; a missing or refused resource is no reason to.
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
        let Ok(name) = ResourceName::of(uri) else {
            let reason = "the broker has resources named `kbs:///repository/type/tag` only";
            return Err(refused(uri, reason.to_owned()));
        };
        let path = format!("resource/{name}");
        let until = Instant::now() + self.patience;
        let mut worn = None;
        let mut last = String::new();
        for attempt in 0..TRIES_MAX {
            pause(attempt, until);
            let (number, session, tools) = match self.session(worn, until) {
                Ok(session) => session,
                Err(Failure::Refused(reason)) => return Err(refused(uri, reason)),
                Err(Failure::Silent(reason)) => {
                    last = reason;
                    continue;
                }
            };
            let answer = tools.connection.get(&path, session.credentials(), until);
            match answer.map(|said| judge(uri, said)) {
                Ok(Ok(body)) => {
                    let opened = tools.key.open(&body);
                    return opened.map_err(|error| refused(uri, error.to_string()));
                }
                Ok(Err(Next::Fail(error))) => return Err(error),
                Ok(Err(Next::AttestAgain(reason))) if worn.is_some() => {
                    return Err(refused(uri, reason));
                }
                Ok(Err(Next::AttestAgain(_))) => worn = Some(number),
                Ok(Err(Next::TryAgain(reason))) => last = reason,
                Err(silence) => last = silence.0,
            }
        }
        Err(KeyError::Unreachable {
            uri: uri.clone(),
            reason: last,
        })
    }
}

fn refused(uri: &ResourceUri, reason: String) -> KeyError {
    KeyError::Refused {
        uri: uri.clone(),
        reason,
    }
}

/// Waits before another try, but not before the first.
fn pause(attempt: u32, until: Instant) {
    if let Some(earlier) = attempt.checked_sub(1) {
        let left = until.saturating_duration_since(Instant::now());
        std::thread::sleep((PAUSE * 2_u32.saturating_pow(earlier)).min(left));
    }
}

/// What an answer to a request for a resource means. Upstream has one status for all
/// failures, so the kind of error decides.
fn judge(uri: &ResourceUri, said: Said) -> Result<Vec<u8>, Next> {
    let status = said.status;
    if status == StatusCode::OK {
        return Ok(said.body);
    }
    let details = details(&said.body);
    let kind = details.as_ref().map_or("", |details| details.variant());
    let detail = details.as_ref().map_or("", |details| &details.detail);
    let reason = printable(&format!("{} {kind} {detail}", status.as_u16()));
    Err(match (status, kind) {
        (StatusCode::NOT_FOUND, _) | (_, "PluginInternalError") => {
            Next::Fail(KeyError::Absent(uri.clone()))
        }
        (_, "TokenVerifierError" | "TokenNotFound" | "MeasurementLogRequired") => {
            Next::AttestAgain(reason)
        }
        _ if may_pass(status) => Next::TryAgain(reason),
        _ => Next::Fail(refused(uri, reason)),
    })
}

/// A provider that gives nothing, because its configuration cannot be used.
pub struct Unusable(
    /// Why.
    pub String,
);

impl KeyProvider for Unusable {
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
        Err(KeyError::Unreachable {
            uri: uri.clone(),
            reason: self.0.clone(),
        })
    }
}
