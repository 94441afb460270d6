//! One attestation, and what came of it.

use std::time::{Duration, Instant};

use agent_documents::parse_json;
use agent_keys_protocol::{
    Attestation, Challenge, InitData, Request, RuntimeData, TeeKey, Token, VERSION,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use ureq::http::StatusCode;

use crate::{
    Guest,
    connection::{Connection, Credentials, Said, Silence, details, printable},
};

/// What upstream gives a session, from its challenge on.
pub(crate) const USUAL: Duration = Duration::from_secs(300);
/// A session is not used in its last seconds.
const MARGIN: Duration = Duration::from_secs(10);
/// Longer ones do not fit into a header.
const TOKEN_MAX: usize = 32 << 10;

/// A session that attested.
pub(crate) struct Session {
    cookie: Option<String>,
    token: String,
    pub(crate) until: Instant,
}

impl Session {
    pub(crate) fn credentials(&self) -> Credentials<'_> {
        Credentials {
            cookie: self.cookie.as_deref(),
            token: Some(&self.token),
        }
    }
}

/// Why there is no session.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The broker said no, or the guest cannot prove itself; asking again is in vain.
    Refused(String),
    /// Nobody said anything; asking again may help.
    Silent(String),
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        Self::Silent(silence.0)
    }
}

/// Proves the guest to the broker.
pub(crate) fn attest(
    connection: &Connection,
    guest: &Guest,
    key: &TeeKey,
    until: Instant,
) -> Result<Session, Failure> {
    let refused = |error: &dyn std::error::Error| Failure::Refused(error.to_string());
    let begun = Instant::now();
    let tee = guest.tee().map_err(|error| refused(&error))?;
    let request = json(&Request::new(tee.kind().name()))?;
    let said = connection.post("auth", &request, Credentials::default(), until)?;
    let said = accepted(said, "the first message")?;
    let challenge: Challenge = read(&said.body, "challenge")?;
    let wants_log = challenge.wants_log().map_err(|error| refused(&error))?;
    let evidence = guest
        .prove(&challenge.nonce, key.public(), wants_log)
        .map_err(|error| refused(&error))?;
    let attestation = json(&Attestation {
        init_data: guest.initdata.as_ref().map(|body| InitData {
            format: "toml".to_owned(),
            body: body.clone(),
        }),
        runtime_data: RuntimeData {
            nonce: challenge.nonce,
            tee_pubkey: key.public().clone(),
        },
        tee_evidence: evidence,
    })?;
    let cookie = said.cookie;
    let credentials = Credentials {
        cookie: cookie.as_deref(),
        token: None,
    };
    let said = connection.post("attest", &attestation, credentials, until)?;
    let said = accepted(said, "the evidence")?;
    let Token { token } = read(&said.body, "token")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
    if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(is_plain) {
        return Err(Failure::Refused("the broker's token is none".into()));
    }
    Ok(Session {
        until: begun + lifetime(&token),
        cookie,
        token,
    })
}

fn json(message: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(message).map_err(|error| Failure::Refused(error.to_string()))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, Failure> {
    parse_json(body).map_err(|_| Failure::Refused(format!("the broker's {what} cannot be read")))
}

/// What was said, if it is no error.
fn accepted(said: Said, what: &str) -> Result<Said, Failure> {
    if said.status == StatusCode::OK {
        return Ok(said);
    }
    let told = details(&said.body).map_or_else(String::new, |details| {
        let text = format!(": {}: {}", details.variant(), details.detail);
        printable(&text)
    });
    let text = format!(
        "the broker answered {what} of protocol {VERSION} with {}{told}",
        said.status.as_u16()
    );
    Err(if may_pass(said.status) {
        Failure::Silent(text)
    } else {
        Failure::Refused(text)
    })
}

/// Whether asking again later may help.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

#[derive(Deserialize)]
struct Times {
    iat: Option<u64>,
    exp: Option<u64>,
}

/// How long a session is used: as long as the token lives by its own times, whose difference
/// needs no clock, but no longer than upstream's sessions do.
pub(crate) fn lifetime(token: &str) -> Duration {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    let times: Option<Times> = parse_json(&payload).ok();
    let whole = times.and_then(|times| times.exp?.checked_sub(times.iat?));
    let whole = whole.map_or(USUAL, Duration::from_secs).min(USUAL);
    whole.saturating_sub(MARGIN).max(whole / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_before_its_token_and_needs_no_clock_for_it() {
        let lifetime =
            |claims: &str| lifetime(&format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims))).as_secs();
        assert_eq!(lifetime(r#"{"iat":1000,"exp":1060}"#), 50);
        assert_eq!(lifetime(r#"{"iat":1000,"exp":1004}"#), 2);
        assert_eq!(lifetime(r#"{"iat":0,"exp":99999999}"#), 290);
        for broken in ["", "[", "{}", r#"{"iat":2,"exp":1}"#, r#"{"iat":"x"}"#] {
            assert_eq!(lifetime(broken), 290, "{broken}");
        }
    }
}
