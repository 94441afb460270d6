//! The registry's side of a pull: the distribution protocol over HTTP.
//!
//! Everything that answers here is hostile: the network (TLS authenticates the
//! registry where it is not configured as insecure), the registry, and whoever it
//! redirects to. So each wait ends with the pull's time, each body has a limit,
//! redirects are
//! counted and never lead from TLS to plain text, and credentials stay with the
//! origin they are for. Nothing fetched here is believed: digests are checked by
//! the callers.
//!
//! `ureq` does HTTP and TLS: blocking, small, without a runtime of its own; this
//! module keeps redirects, authentication and retries to itself, because their
//! rules are ours. Protocol: OCI distribution specification 1.1.

mod agents;
mod answer;
pub(crate) mod auth;
mod blob;
mod body;
mod credentials;
mod deadline;
pub(crate) mod dns;
mod error;
mod origin;
mod resolve;
mod tokens;
mod url;

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub use agents::{AgentConfig, AgentError, Agents};
pub use answer::Answer;
use answer::{accept, redirect, short};
pub use auth::Credential;
use auth::{Authorization, Challenge, TokenQuery};
pub use blob::Blob;
pub use body::drain;
use body::{note, read_short};
pub use credentials::{Credentials, CredentialsError};
pub use deadline::{Deadline, Over};
pub use error::FetchError;
pub use origin::{Origin, locate};
use tokens::{Next, Tokens};
use ureq::{
    Body, SendBody,
    http::{Request as HttpRequest, Response, Uri},
};

/// More redirects than any registry needs (one to its storage, one between regions).
const REDIRECTS_MAX: usize = 5;
const TOKEN_MAX: usize = 256 * 1024;
const RETRIES_MAX: u32 = 5;
/// Tokens that are got for one request: more than one where others use them up, or where
/// they age on the way.
const RENEWALS_MAX: u32 = 3;
/// What a wait may take beyond the pull's time: timers round, and the deadline itself must
/// be seen to be over.
const SLACK: Duration = Duration::from_millis(20);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Where an image is asked for: a repository at an origin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The server.
    pub origin: Origin,
    /// Its name on that server.
    pub repository: String,
    /// `registry/repository` under which credentials are looked up.
    pub credentials_name: String,
}

/// How long to wait before try number `failures`.
fn back_off(failures: u32, error: &FetchError) -> Duration {
    let own = RETRY_FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    match error {
        FetchError::Status {
            retry_after: Some(asked),
            ..
        } => own.max(*asked).min(RETRY_LONGEST),
        _ => own.min(RETRY_LONGEST),
    }
}

/// One thing to get from a source.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Where it is.
    pub source: &'a Source,
    /// Below `/v2/<repository>/`.
    pub path: &'a str,
    /// What it is, for messages: `manifest`, `blob` and so on.
    pub what: &'static str,
    /// Media types that are asked for.
    pub accept: Option<&'a str>,
    /// Continue at this byte.
    pub offset: u64,
}

/// Talks to registries; shared by all pulls, so that connections and tokens are.
pub struct Client {
    agents: Agents,
    credentials: Credentials,
    tokens: Tokens,
    requests: AtomicU64,
}

impl Client {
    /// With these connections and credentials; talks to nobody yet.
    pub fn new(agents: Agents, credentials: Credentials) -> Self {
        Self {
            agents,
            credentials,
            tokens: Tokens::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// Requests sent so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Fetches something short, trying again where that may help.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn get(
        &self,
        request: Request<'_>,
        limit: u64,
        deadline: &Deadline,
    ) -> Result<Answer, FetchError> {
        self.retrying(deadline, || {
            short(self.open(request, deadline)?, request, limit, deadline)
        })
    }

    fn retrying(
        &self,
        deadline: &Deadline,
        mut once: impl FnMut() -> Result<Answer, FetchError>,
    ) -> Result<Answer, FetchError> {
        let mut failures = 0;
        loop {
            match once() {
                Err(error) if error.is_transient() && failures < RETRIES_MAX => {
                    failures += 1;
                    tracing::debug!(%error, failures, "request failed, trying again");
                    deadline.pause(back_off(failures, &error))?;
                }
                result => return result,
            }
        }
    }

    /// Sends a request, authenticating if asked to; returns a successful answer, its body unread.
    fn open(
        &self,
        request: Request<'_>,
        deadline: &Deadline,
    ) -> Result<Response<Body>, FetchError> {
        let source = request.source;
        let uri = format!(
            "{}/v2/{}/{}",
            source.origin, source.repository, request.path
        );
        let uri: Uri = uri
            .parse()
            .map_err(|error| FetchError::unreachable(&source.origin, io::Error::other(error)))?;
        let mut known = self.authorization(source);
        for renewals in 0.. {
            let response = self.follow(&uri, request, known.as_deref(), deadline)?;
            if response.status() != 401 {
                return self.accept(response, request);
            }
            // Whoever shares a token may have used it up; one that nobody shares cannot be.
            let share = match renewals {
                0 => Share::All,
                1..RENEWALS_MAX => Share::Nobody,
                _ => break,
            };
            known = self.renew(source, response, known.as_deref(), share, deadline)?;
            if known.is_none() {
                break;
            }
        }
        let advice = self.advice(source);
        Err(FetchError::Denied {
            origin: source.origin.to_string(),
            note: String::new(),
            advice,
        })
    }

    fn advice(&self, source: &Source) -> &'static str {
        match self.credentials.find(&source.credentials_name) {
            Some(_) => "check the credentials given for it",
            None => "give credentials for it, or check the image's name",
        }
    }

    /// Lets successes through and names failures.
    ///
    /// # Errors
    /// The answer is none, or another one than the protocol has.
    pub fn accept(
        &self,
        response: Response<Body>,
        request: Request<'_>,
    ) -> Result<Response<Body>, FetchError> {
        accept(response, request, self.advice(request.source))
    }

    /// Sends a request that somebody else made; its answer is whatever came.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`], or the time was over.
    pub fn run(
        &self,
        origin: &Origin,
        request: HttpRequest<SendBody<'_>>,
        deadline: &Deadline,
    ) -> Result<Response<Body>, FetchError> {
        let agent = self.agents.of(origin);
        let limited = agent.configure_request(request);
        let limited = limited.timeout_global(Some(deadline.check()? + SLACK));
        self.count();
        failed(agent.run(limited.build()), origin, deadline)
    }

    /// The `Authorization` header that a source took before, if it is still fresh.
    pub fn authorization(&self, source: &Source) -> Option<String> {
        self.tokens.known(source)
    }

    /// Gets an `Authorization` header other than the one that was just refused with a 401;
    /// `None` if there is no other. Layers arrive here at once when a token expires; the
    /// first one fetches the next.
    ///
    /// # Errors
    /// The token server.
    pub fn authorize(
        &self,
        source: &Source,
        refusal: Response<Body>,
        refused: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Option<String>, FetchError> {
        self.renew(source, refusal, refused, Share::All, deadline)
    }

    fn renew(
        &self,
        source: &Source,
        refusal: Response<Body>,
        refused: Option<&str>,
        share: Share,
        deadline: &Deadline,
    ) -> Result<Option<String>, FetchError> {
        let headers = refusal.headers().get_all("www-authenticate").iter();
        let challenge = auth::challenge(headers.filter_map(|value| value.to_str().ok()));
        drain(refusal);
        let Some(challenge) = challenge else {
            return Ok(None);
        };
        let renewal = match share {
            Share::Nobody => None,
            Share::All => match self.tokens.next(source, refused, deadline)? {
                Next::Known(header) => return Ok(Some(header)),
                Next::Renew(renewal) => Some(renewal),
            },
        };
        let fresh = self.answer(source, challenge, deadline)?;
        let fresh = fresh.filter(|fresh| Some(fresh.header.as_str()) != refused);
        let header = fresh.as_ref().map(|fresh| fresh.header.clone());
        if let (Some(renewal), Some(fresh)) = (renewal, fresh) {
            renewal.keep(fresh);
        }
        Ok(header)
    }

    /// What answers a challenge; `None` if there is nothing to answer it with.
    fn answer(
        &self,
        source: &Source,
        challenge: Challenge,
        deadline: &Deadline,
    ) -> Result<Option<Authorization>, FetchError> {
        let credential = self.credentials.find(&source.credentials_name);
        match challenge {
            Challenge::Basic => Ok(credential.map(|credential| Authorization {
                header: credential.basic(),
                until: None,
            })),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let query = TokenQuery {
                    realm: &realm,
                    service: service.as_deref(),
                    scope: scope.as_deref(),
                };
                self.fetch_token(source, query, credential, deadline)
                    .map(Some)
            }
        }
    }

    fn fetch_token(
        &self,
        source: &Source,
        query: TokenQuery<'_>,
        credential: Option<&Credential>,
        deadline: &Deadline,
    ) -> Result<Authorization, FetchError> {
        let realm: String = query.realm.chars().take(200).collect();
        let refuse = |reason| FetchError::Token {
            origin: source.origin.to_string(),
            realm,
            reason,
        };
        let Some(uri) = query.uri(&source.repository) else {
            return Err(refuse("is not a URL"));
        };
        match Origin::of_uri(&uri) {
            Some(origin) if origin.tls || !source.origin.tls => {}
            _ => return Err(refuse("is not protected by TLS")),
        }
        let basic = credential.map(Credential::basic);
        let request = Request {
            source,
            path: "",
            what: "token",
            accept: None,
            offset: 0,
        };
        let mut response = self.follow(&uri, request, basic.as_deref(), deadline)?;
        if response.status() == 401 || response.status() == 403 {
            let origin = Origin::of_uri(&uri).map_or_else(String::new, |origin| origin.to_string());
            return Err(FetchError::Denied {
                origin,
                note: note(response),
                advice: self.advice(source),
            });
        }
        if !response.status().is_success() {
            return accept(response, request, "").and(Err(refuse("sends no token")));
        }
        let body = read_short(
            response.body_mut(),
            TOKEN_MAX as u64,
            deadline,
            &source.origin,
            "token",
        )?;
        auth::token(&body).ok_or_else(|| refuse("sends no token"))
    }

    /// Sends a request and follows its redirects; the authorization goes to the first origin only.
    fn follow(
        &self,
        start: &Uri,
        request: Request<'_>,
        authorization: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Response<Body>, FetchError> {
        let first = Origin::of_uri(start);
        let mut uri = start.clone();
        for _ in 0..=REDIRECTS_MAX {
            let origin = Origin::of_uri(&uri).unwrap_or_else(|| request.source.origin.clone());
            let authorization = authorization.filter(|_| Some(&origin) == first.as_ref());
            let response = self.send(&uri, &origin, request, authorization, deadline)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            uri = redirect(&uri, &origin, &response)?;
            drain(response);
        }
        Err(FetchError::TooManyRedirects(
            request.source.origin.to_string(),
        ))
    }

    fn send(
        &self,
        uri: &Uri,
        origin: &Origin,
        request: Request<'_>,
        authorization: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Response<Body>, FetchError> {
        let limited = self.agents.of(origin).get(uri).config();
        let limited = limited.timeout_global(Some(deadline.check()? + SLACK));
        let mut builder = limited.build();
        if let Some(accept) = request.accept {
            builder = builder.header("Accept", accept);
        }
        if let Some(authorization) = authorization {
            builder = builder.header("Authorization", authorization);
        }
        if request.offset > 0 {
            builder = builder.header("Range", format!("bytes={}-", request.offset));
        }
        self.count();
        failed(builder.call(), origin, deadline)
    }
}

/// Names what went wrong: first of all that there is no time left.
fn failed<T>(
    result: Result<T, ureq::Error>,
    origin: &Origin,
    deadline: &Deadline,
) -> Result<T, FetchError> {
    let error = match result {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    deadline.check()?;
    Err(FetchError::unreachable(origin, error.into_io()))
}

/// Who may use a token that is got.
#[derive(Debug, Clone, Copy)]
enum Share {
    All,
    Nobody,
}
