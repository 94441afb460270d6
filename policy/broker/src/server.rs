//! The protocol over HTTP and TLS. Everything that a stranger can make it hold is bounded:
//! connections, the time of each step, bytes of bodies, requests by address.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, SET_COOKIE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    answer::Answer,
    broker::{Broker, Credential},
    peers::{Held, Peers},
    rate::Rates,
    sessions::{LIFETIME, SessionId},
};

const PREFIX: &str = "/kbs/v0/";
const COOKIE_NAME: &str = "kbs-session-id";
const CONNECTIONS_MAX: usize = 4096;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: Duration = Duration::from_secs(10);
const BODY_MAX: Duration = Duration::from_secs(20);
/// A connection ends after this long, whatever it does.
const CONNECTION_MAX: Duration = Duration::from_secs(120);
/// A request's headers, with a token among them.
const HEAD_BYTES_MAX: usize = 128 * 1024;
/// A measurement log in base64 and a report.
const BODY_BYTES_MAX: usize = 8 << 20;
/// A beginning has nothing but names.
const BEGIN_BYTES_MAX: usize = 64 << 10;
/// Of all bodies at a time, in units of this many bytes.
const UNIT_BYTES: usize = 16 << 10;
const UNITS_MAX: usize = 8192;
/// Decisions made at a time; others wait.
const DECISIONS_MAX: usize = 8;

struct Server {
    broker: Broker,
    rates: Mutex<Rates>,
    bodies: Arc<Semaphore>,
    decisions: Semaphore,
}

/// Serves until the task is dropped.
pub async fn serve(broker: Broker, tls: Arc<ServerConfig>, listener: TcpListener) {
    let server = Arc::new(Server {
        broker,
        rates: Mutex::default(),
        bodies: Arc::new(Semaphore::new(UNITS_MAX)),
        decisions: Semaphore::new(DECISIONS_MAX),
    });
    let acceptor = TlsAcceptor::from(tls);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let peers = Arc::new(Peers::default());
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let Ok((stream, address)) = listener.accept().await else {
            // Out of descriptors, most likely: those that are open will end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(held) = peers.hold(address.ip()) else {
            continue;
        };
        let (server, acceptor) = (Arc::clone(&server), acceptor.clone());
        tokio::spawn(async move {
            let connection = connection(server, acceptor, stream, address.ip());
            // Too long, or ended: both end it.
            let _ = timeout(CONNECTION_MAX, connection).await;
            drop::<(OwnedSemaphorePermit, Held)>((permit, held));
        });
    }
}

async fn connection(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream, peer: IpAddr) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else {
        return;
    };
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, std::convert::Infallible>(server.answer(request, peer).await) }
    });
    // Whatever ends it, the other side knows as much as we do.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// What is asked for.
enum Asked {
    Health,
    Begin,
    Attest,
    Resource(String),
}

impl Asked {
    fn parse(method: &Method, path: &str) -> Option<Self> {
        if path == "/healthz" && method == Method::GET {
            return Some(Self::Health);
        }
        let rest = path.strip_prefix(PREFIX)?;
        match (method, rest) {
            (&Method::POST, "auth") => Some(Self::Begin),
            (&Method::POST, "attest") => Some(Self::Attest),
            (&Method::GET, _) => rest
                .strip_prefix("resource/")
                .map(|name| Self::Resource(name.to_owned())),
            _ => None,
        }
    }
}

/// The name that a request for a resource gives.
#[cfg(feature = "fuzzing")]
pub(crate) fn resource(method: &Method, path: &str) -> Option<String> {
    match Asked::parse(method, path) {
        Some(Asked::Resource(name)) => Some(name),
        _ => None,
    }
}

impl Server {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Full<Bytes>> {
        let is_allowed = {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            rates.allow(peer, Instant::now())
        };
        if !is_allowed {
            return written(Answer::error(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequests",
                "this address asks too often",
            ));
        }
        let (head, body) = request.into_parts();
        // Names of resources need no query and no escapes; neither is understood.
        let asked = match head.uri.query() {
            None => Asked::parse(&head.method, head.uri.path()),
            Some(_) => None,
        };
        let answer = match asked {
            None => Answer::error(
                StatusCode::NOT_FOUND,
                "InvalidRequestPath",
                "nothing is here",
            ),
            Some(Asked::Health) => {
                let (waiting, attested) = self.broker.sessions();
                Answer::json(&serde_json::json!({"waiting": waiting, "attested": attested}))
            }
            Some(Asked::Begin) => match self.read(body, BEGIN_BYTES_MAX).await {
                Ok((body, _held)) => self.broker.begin(&body),
                Err(answer) => answer,
            },
            Some(Asked::Attest) => {
                let id = session(&head.headers);
                match self.read(body, BODY_BYTES_MAX).await {
                    Ok((body, held)) => {
                        self.decide(move |broker| {
                            let answer = broker.attest(id.as_ref(), &body, peer);
                            drop(held);
                            answer
                        })
                        .await
                    }
                    Err(answer) => answer,
                }
            }
            Some(Asked::Resource(name)) => {
                let credential = credential(&head.headers);
                self.decide(move |broker| broker.resource(&name, credential, peer))
                    .await
            }
        };
        written(answer)
    }

    /// Decisions take processors and disks, so they are made beside the connections.
    async fn decide(
        self: Arc<Self>,
        decide: impl FnOnce(&Broker) -> Answer + Send + 'static,
    ) -> Answer {
        let server = Arc::clone(&self);
        let Ok(_permit) = self.decisions.acquire().await else {
            return Answer::failed("the broker ends");
        };
        let decided = tokio::task::spawn_blocking(move || decide(&server.broker)).await;
        decided.unwrap_or_else(|_| Answer::failed("the decision failed"))
    }

    /// A body, within the limits of its own and of all together.
    async fn read(
        &self,
        body: Incoming,
        most: usize,
    ) -> Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), Answer> {
        let too_long = || {
            let detail = format!("a body here has at most {most} bytes");
            Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "TooLong", detail)
        };
        if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > most) {
            return Err(too_long());
        }
        let reading = self.frames(body, most);
        match timeout(BODY_MAX, reading).await {
            Ok(Some(Ok(read))) => Ok(read),
            Ok(Some(Err(()))) => Err(too_long()),
            Ok(None) | Err(_) => Err(Answer::failed("the body does not come, or too many come")),
        }
    }

    /// None if it does not come whole or there is no room; an error if it is too long.
    async fn frames(
        &self,
        mut body: Incoming,
        most: usize,
    ) -> Option<Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), ()>> {
        let (mut bytes, mut held) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.ok()?.into_data() else {
                continue;
            };
            if bytes.len() + chunk.len() > most {
                return Some(Err(()));
            }
            while held.len() * UNIT_BYTES < bytes.len() + chunk.len() {
                held.push(Arc::clone(&self.bodies).try_acquire_owned().ok()?);
            }
            bytes.extend_from_slice(&chunk);
        }
        Some(Ok((bytes, held)))
    }
}

fn session(headers: &HeaderMap) -> Option<SessionId> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
    SessionId::parse(value)
}

fn credential(headers: &HeaderMap) -> Credential {
    if let Some(id) = session(headers) {
        return Credential::Session(id);
    }
    let header = headers.get(AUTHORIZATION);
    let text = header.and_then(|value| value.to_str().ok());
    match text.and_then(|text| text.strip_prefix("Bearer ")) {
        Some(token) => Credential::Bearer(token.to_owned()),
        None => Credential::None,
    }
}

fn written(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(id) = answer.session {
        let (id, seconds) = (id.as_str(), LIFETIME.as_secs());
        let cookie = format!("{COOKIE_NAME}={id}; Path=/; Max-Age={seconds}; Secure; HttpOnly");
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            headers.insert(SET_COOKIE, value);
        }
    }
    response
}
