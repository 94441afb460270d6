//! Reads bodies: short ones whole, useless ones away, error messages for show.

use std::io::{self, Read};

use agent_documents::parse_json;
use ureq::{Body, http::Response};

use super::{Deadline, FetchError, Origin};

/// Error bodies and redirects' bodies are read this far, no further.
const NOTE_MAX: usize = 8 * 1024;

#[derive(serde::Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorItem>,
}

#[derive(serde::Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default, deserialize_with = "crate::json::default_or_null")]
    message: String,
}

/// The first error of the registry's own, in parentheses, without control characters.
pub(super) fn note(mut response: Response<Body>) -> String {
    let mut body = Vec::new();
    let read = response
        .body_mut()
        .as_reader()
        .take(NOTE_MAX as u64)
        .read_to_end(&mut body);
    let parsed: Option<ErrorBody> = read.ok().and_then(|_| parse_json(&body).ok());
    let Some(first) = parsed.and_then(|body| body.errors.into_iter().next()) else {
        return String::new();
    };
    let clean = |text: String| {
        text.chars()
            .filter(|c| !c.is_control())
            .take(160)
            .collect::<String>()
    };
    format!(" ({}: {})", clean(first.code), clean(first.message))
}

/// Reads what little a redirect or challenge says, so that its connection can be used again.
pub fn drain(mut response: Response<Body>) {
    let _ = io::copy(
        &mut response.body_mut().as_reader().take(NOTE_MAX as u64),
        &mut io::sink(),
    );
}

pub(super) fn read_short(
    body: &mut Body,
    limit: u64,
    deadline: &Deadline,
    origin: &Origin,
    what: &'static str,
) -> Result<Vec<u8>, FetchError> {
    let mut reader = body.as_reader();
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        deadline.check()?;
        let length = match reader.read(&mut chunk) {
            Ok(length) => length,
            Err(error) => {
                deadline.check()?;
                return Err(FetchError::unreachable(origin, error));
            }
        };
        if length == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if bytes.len() as u64 > limit {
            return Err(FetchError::TooLong {
                origin: origin.to_string(),
                what,
                limit,
            });
        }
    }
}
