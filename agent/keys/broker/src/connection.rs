//! HTTP with the broker: one request, one bounded answer.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use agent_documents::parse_json;
use agent_image_registry::{AgentConfig, Agents};
use agent_keys_protocol::Details;
use ureq::{
    Body, Error,
    http::{
        Response, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE},
    },
};

use crate::Address;

/// Longest answer: what is longer is no JWE.
const BODY_MAX: u64 = 4 << 20;
/// How long the broker may be silent.
const SILENCE: Duration = Duration::from_secs(30);
const COOKIE_MAX: usize = 256;
const COOKIE_NAME: &str = "kbs-session-id=";
/// Where Debian and its relatives, and the guest image, keep root certificates.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the broker said.
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) cookie: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Nothing was said that could be used; why.
#[derive(Debug, Clone)]
pub(crate) struct Silence(pub(crate) String);

/// How a request says which session it belongs to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    pub(crate) cookie: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
}

pub(crate) struct Connection {
    agents: Agents,
    base: String,
}

impl Connection {
    pub(crate) fn new(address: &Address) -> Result<Self, Silence> {
        let roots = match &address.certificate {
            Some(pem) => pem.clone().into_bytes(),
            None => std::fs::read(ROOTS).map_err(|_| {
                Silence("initdata's aa.toml has no `cert`, and the guest has no roots".into())
            })?,
        };
        let config = AgentConfig {
            root_certificates: &[roots],
            https_proxy: None,
            http_proxy: None,
            no_proxy: None,
            silence: SILENCE,
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        };
        let agents = Agents::build(&config)
            .map_err(|_| Silence("the `cert` of initdata's aa.toml is no certificate".into()))?;
        Ok(Self {
            agents,
            base: format!("{}/kbs/v0/", address.url),
        })
    }

    pub(crate) fn post(
        &self,
        path: &str,
        body: &[u8],
        credentials: Credentials<'_>,
        until: Instant,
    ) -> Result<Said, Silence> {
        let request = self.agents.direct().post(format!("{}{path}", self.base));
        let request = request.header(CONTENT_TYPE, "application/json");
        let request = with(request, credentials);
        let limited = request.config().timeout_global(Some(left(until)?)).build();
        said(limited.send(body))
    }

    pub(crate) fn get(
        &self,
        path: &str,
        credentials: Credentials<'_>,
        until: Instant,
    ) -> Result<Said, Silence> {
        let request = self.agents.direct().get(format!("{}{path}", self.base));
        let request = with(request, credentials);
        let limited = request.config().timeout_global(Some(left(until)?)).build();
        said(limited.call())
    }
}

fn left(until: Instant) -> Result<Duration, Silence> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Silence("the broker took too long".into()));
    }
    Ok(left)
}

fn with<B>(
    mut request: ureq::RequestBuilder<B>,
    credentials: Credentials<'_>,
) -> ureq::RequestBuilder<B> {
    if let Some(cookie) = credentials.cookie {
        request = request.header(COOKIE, cookie);
    }
    if let Some(token) = credentials.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    request
}

fn said(answer: Result<Response<Body>, Error>) -> Result<Said, Silence> {
    let silence = |error: &dyn std::fmt::Display| Silence(printable(&error.to_string()));
    let mut response = answer.map_err(|error| silence(&error))?;
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader().take(BODY_MAX + 1);
    reader
        .read_to_end(&mut body)
        .map_err(|error| silence(&error))?;
    if body.len() as u64 > BODY_MAX {
        return Err(Silence(format!(
            "its answer is longer than {BODY_MAX} bytes"
        )));
    }
    let cookies = response.headers().get_all(SET_COOKIE).iter();
    let cookie = cookies
        .filter_map(|value| cookie(value.to_str().ok()?))
        .next();
    Ok(Said {
        status: response.status(),
        cookie,
        body,
    })
}

/// Name and value of the session's cookie, if that is what it is.
pub(crate) fn cookie(text: &str) -> Option<String> {
    let pair = text.split(';').next()?.trim();
    let value = pair.strip_prefix(COOKIE_NAME)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let fits = !value.is_empty() && pair.len() <= COOKIE_MAX && value.bytes().all(allowed);
    fits.then(|| pair.to_owned())
}

/// Which error a body tells, and its text for people.
pub(crate) fn details(body: &[u8]) -> Option<Details> {
    parse_json(body).ok()
}

/// Foreign text, fit for a message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
