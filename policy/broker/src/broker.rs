//! The broker: answers each message of the protocol, and writes down each decision.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use agent_evidence::Sha256Digest;
use agent_keys_protocol::{
    Attestation, Challenge, LOG_EVIDENCE, Request, ResourceName, Token as TokenMessage, VERSION,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::StatusCode;
use policy_appraisal::Timestamp;
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    appraise::{Affirmed, TEE, appraise},
    audit::{Audit, Line},
    clock::now,
    identity::{self, IdentityError},
    refusal::{Refusal, names},
    repeats::Repeats,
    rules::{Rules, RulesError},
    sessions::{SessionId, Sessions},
    store::Store,
    token::{Attested, Token, TokenKey},
};

/// A broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its keys or its store.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the owner accepts.
    #[error("what the owner accepts cannot be read")]
    Rules(#[from] RulesError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] crate::audit::AuditError),
}

/// What a guest shows to get a resource.
pub(crate) enum Credential {
    /// The cookie of its session.
    Session(SessionId),
    /// The token that it got.
    Bearer(String),
    /// Neither.
    None,
}

/// A broker of one owner.
pub struct Broker {
    directory: PathBuf,
    store: Store,
    token: TokenKey,
    sessions: Mutex<Sessions>,
    /// What the owner accepts, or why that cannot be read.
    rules: Mutex<Result<Arc<Rules>, String>>,
    audit: Mutex<Audit>,
    repeats: Mutex<Repeats>,
}

impl Broker {
    /// Opens the broker in a directory; gives it, its TLS configuration, and where to listen.
    ///
    /// # Errors
    ///
    /// [`OpenError`]
    pub fn open(
        directory: &Path,
        store_key: &Path,
    ) -> Result<(Self, Arc<rustls::ServerConfig>, std::net::SocketAddr), OpenError> {
        let store = identity::open_store(directory, store_key)?;
        let keys = identity::open(directory, &store)?;
        let rules = Arc::new(Rules::read(directory)?);
        let listen = rules.configuration.listen;
        let broker = Self {
            directory: directory.to_owned(),
            store,
            token: keys.token,
            sessions: Mutex::default(),
            rules: Mutex::new(Ok(rules)),
            audit: Mutex::new(Audit::open(directory)?),
            repeats: Mutex::default(),
        };
        Ok((broker, keys.tls, listen))
    }

    /// Begins a session.
    pub(crate) fn begin(&self, body: &[u8]) -> Answer {
        let request: Request = match agent_documents::parse_json(body) {
            Ok(request) => request,
            Err(_) => return malformed(),
        };
        if request.version != VERSION {
            let detail = format!("this broker speaks version {VERSION} of the protocol alone");
            return Answer::unauthorized("AttestationError", detail);
        }
        if request.tee != TEE {
            let detail = format!("this broker judges evidence of the TEE {TEE} alone");
            return Answer::unauthorized("AttestationError", detail);
        }
        let begun = lock(&self.sessions).begin(Instant::now());
        let Ok((id, nonce)) = begun else {
            return Answer::failed("no session can begin");
        };
        let challenge = Challenge {
            nonce: STANDARD.encode(nonce),
            extra_params: json!({LOG_EVIDENCE: true}),
        };
        Answer {
            session: Some(id),
            ..Answer::json(&challenge)
        }
    }

    /// Judges evidence for a session, once.
    pub(crate) fn attest(&self, id: Option<&SessionId>, body: &[u8], peer: IpAddr) -> Answer {
        let Some(id) = id else {
            return Answer::unauthorized("AttestationError", "no session: begin one");
        };
        let session = lock(&self.sessions).take(id, Instant::now());
        let Some(session) = session else {
            let detail = "there is no such session, it is over, or it has attested already";
            return Answer::unauthorized("AttestationError", detail);
        };
        let Ok(attestation) = agent_documents::parse_json::<Attestation>(body) else {
            return malformed();
        };
        let Some((rules, now)) = self.rules().zip(now()) else {
            return Answer::failed("what the owner accepts cannot be read");
        };
        let nonce = STANDARD.encode(session.nonce);
        let at = Timestamp::from_unix_seconds(now);
        let judged = appraise(&rules, &nonce, &attestation, at);
        let (guest, refusals) = match &judged {
            Ok(affirmed) => (Some(guest(&affirmed.claims)), Vec::new()),
            Err(refusals) => (None, refusals.clone()),
        };
        let line = Line {
            guest,
            ..line("attest", peer, at, refusals)
        };
        if !self.write_down(line) {
            return Answer::failed("the decision cannot be written down");
        }
        match judged {
            Err(refusals) => {
                let detail = format!("refused by {}", names(&refusals));
                Answer::unauthorized("AttestationError", detail)
            }
            Ok(affirmed) => {
                let token = self.issue(&rules, &nonce, &attestation, &affirmed, now);
                let Some(token) = token else {
                    return Answer::failed("no token can be issued");
                };
                let kept = Arc::from(token.as_str());
                lock(&self.sessions).attested(id.clone(), &session, kept);
                Answer::json(&TokenMessage { token })
            }
        }
    }

    fn issue(
        &self,
        rules: &Rules,
        nonce: &str,
        attestation: &Attestation,
        affirmed: &Affirmed,
        now: i64,
    ) -> Option<String> {
        let attested = Attested {
            tee: TEE,
            claims: &affirmed.claims,
            tee_key: &attestation.runtime_data.tee_pubkey,
            nonce,
            init_data_claims: &affirmed.init_data_claims,
            log: &affirmed.log,
            trust: &affirmed.trust,
            rules: &rules.digest,
        };
        self.token.issue(&attested, now).ok()
    }

    /// Releases a resource, encrypted for the guest that attested.
    pub(crate) fn resource(&self, path: &str, credential: Credential, peer: IpAddr) -> Answer {
        let Ok(name) = ResourceName::parse(path) else {
            let detail = "a resource is named by repository, type and tag";
            return Answer::error(StatusCode::NOT_FOUND, "InvalidRequestPath", detail);
        };
        let Some((rules, now)) = self.rules().zip(now()) else {
            return Answer::failed("what the owner accepts cannot be read");
        };
        let token = match self.token(credential, &rules, now) {
            Ok(token) => token,
            Err(answer) => return answer,
        };
        let at = Timestamp::from_unix_seconds(now);
        let refusal = judge_resource(&rules, &name, &token, now);
        let found = match &refusal {
            None => self.store.find(&name),
            Some(_) => Ok(None),
        };
        let Ok(found) = found else {
            return Answer::failed("the store cannot be read");
        };
        let missing = (refusal.is_none() && found.is_none()).then(|| {
            let advice = "store it: kata-cc broker put";
            Refusal::new("store", "a resource of that name", "none", advice)
        });
        let refusals: Vec<Refusal> = refusal.iter().cloned().chain(missing).collect();
        let place = format!("/submods/cpu0/ear.veraison.annotated-evidence/{TEE}");
        let claims = token.claims().pointer(&place).unwrap_or(&Value::Null);
        let line = Line {
            resource: Some(name.to_string()),
            guest: Some(guest(claims)),
            ..line("resource", peer, at, refusals)
        };
        if !self.write_down(line) {
            return Answer::failed("the decision cannot be written down");
        }
        if let Some(refusal) = refusal {
            return denied(&refusal);
        }
        let Some(content) = found else {
            let detail = "there is no such resource";
            return Answer::error(StatusCode::NOT_FOUND, "ResourceNotFound", detail);
        };
        match token.tee_key().seal(&content) {
            Ok(sealed) => Answer::json(&sealed),
            Err(_) => Answer::unauthorized("JweError", "nothing can be encrypted for this key"),
        }
    }

    /// Writes a decision down, unless it is a refusal like many before; false if it cannot.
    fn write_down(&self, mut line: Line) -> bool {
        if !line.given {
            match lock(&self.repeats).count(&line, Instant::now()) {
                Some(times) => line.times = times,
                None => return true,
            }
        }
        lock(&self.audit).write(line).is_ok()
    }

    /// The claims of whoever asks. A cookie counts before a token.
    fn token(&self, credential: Credential, rules: &Rules, now: i64) -> Result<Token, Answer> {
        let text = match credential {
            Credential::Session(id) => lock(&self.sessions).token(&id, Instant::now()),
            Credential::Bearer(text) => Some(Arc::from(text)),
            Credential::None => None,
        };
        let text = text.ok_or_else(|| {
            Answer::unauthorized("TokenNotFound", "no session that attested, and no token")
        })?;
        let verified = self.token.verify(&text, &rules.digest, now);
        verified.map_err(|error| Answer::unauthorized("TokenVerifierError", error.to_string()))
    }

    /// What the owner accepts now; none if that cannot be read.
    fn rules(&self) -> Option<Arc<Rules>> {
        let mut known = lock(&self.rules);
        if let Ok(rules) = &*known
            && rules.are_current()
        {
            return Some(Arc::clone(rules));
        }
        let read = Rules::read(&self.directory).map(Arc::new);
        let read = read.map_err(|error| chain(&error));
        if let Err(why) = &read
            && known.as_ref().err() != Some(why)
        {
            eprintln!("kata-cc: nothing is released: {why}");
        }
        known.clone_from(&read);
        read.ok()
    }

    /// How many sessions wait, and how many attested.
    pub(crate) fn sessions(&self) -> (usize, usize) {
        lock(&self.sessions).count()
    }
}

/// Why a guest may not have a resource.
fn judge_resource(rules: &Rules, name: &ResourceName, token: &Token, now: i64) -> Option<Refusal> {
    let data = json!({"plugin": "resource", "resource-path": name.segments(), "query": {}});
    let advice = "see the resource policy that broker.toml names";
    match rules.resource.allows(token.claims(), &data) {
        Ok(true) => {}
        Ok(false) => {
            return Some(Refusal::new("resource-policy", "allow", "no", advice));
        }
        Err(error) => {
            return Some(Refusal::new(
                "resource-policy",
                "allow",
                error.to_string(),
                advice,
            ));
        }
    }
    let mut needed = rules.requirements.iter().filter(|one| one.is_for(name));
    needed.find_map(|one| {
        let age = now.saturating_sub(token.issued());
        let containers = token.log().get("containers").and_then(Value::as_u64);
        if age > i64::from(one.max_age_seconds) || containers.unwrap_or_default() == 0 {
            let expected = format!(
                "a log with a container, at most {} seconds old",
                one.max_age_seconds
            );
            let received = match containers {
                Some(containers) => format!("{containers} containers, {age} seconds old"),
                None => "no log".to_owned(),
            };
            let advice = "nothing: the guest attests again when a container asks";
            return Some(Refusal::new(LOG_NEEDED, &expected, received, advice));
        }
        match token.log().pointer(&format!("/surplus/{}", one.name)) {
            Some(Value::Null) => None,
            surplus => Some(Refusal::new(
                "workload",
                "the containers and processes that the owner named",
                surplus.and_then(Value::as_str).unwrap_or("no log"),
                "name it in the workload file under `require` of broker.toml",
            )),
        }
    })
}

/// The check that one more attestation, with the log of now, may pass.
const LOG_NEEDED: &str = "measurement-log-age";

fn denied(refusal: &Refusal) -> Answer {
    let kind = match refusal.check.as_str() {
        LOG_NEEDED => "MeasurementLogRequired",
        _ => "PolicyDeny",
    };
    Answer::unauthorized(kind, format!("refused by {}", refusal.check))
}

fn malformed() -> Answer {
    let detail = "the body is not the message that belongs here";
    Answer::unauthorized("SerdeError", detail)
}

fn guest(claims: &Value) -> String {
    let text = |name| claims.get(name).and_then(Value::as_str).unwrap_or("none");
    format!(
        "measurement {}, HOST_DATA {}",
        text("measurement"),
        text("init_data")
    )
}

fn line(asked: &str, peer: IpAddr, time: Timestamp, refusals: Vec<Refusal>) -> Line {
    Line {
        time,
        asked: asked.to_owned(),
        peer: peer.to_string(),
        resource: None,
        given: refusals.is_empty(),
        times: 1,
        guest: None,
        refusals,
        previous: Sha256Digest::ZERO,
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
