//! What the broker answers: statuses and bodies of the protocol.

use agent_keys_protocol::Details;
use hyper::StatusCode;
use serde::Serialize;

use crate::sessions::SessionId;

/// An answer, before it is HTTP.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    pub(crate) session: Option<SessionId>,
}

impl Answer {
    pub(crate) fn json(body: &impl Serialize) -> Self {
        Self {
            status: StatusCode::OK,
            body: serde_json::to_string(body).expect("messages are json"),
            session: None,
        }
    }

    pub(crate) fn error(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::json(&Details::new(kind, detail))
        }
    }

    /// Refused, in one of the ways that the protocol knows.
    pub(crate) fn unauthorized(kind: &str, detail: impl Into<String>) -> Self {
        Self::error(StatusCode::UNAUTHORIZED, kind, detail)
    }

    /// Nothing of the cause leaves the broker.
    pub(crate) fn failed(what: &str) -> Self {
        Self::error(StatusCode::SERVICE_UNAVAILABLE, "BrokerFailed", what)
    }
}
