//! What comes back: successes, which are let through, redirects, and failures by name.

use std::time::Duration;

use ureq::{
    Body,
    http::{Response, Uri},
};

use super::{
    Deadline, FetchError, Origin, Request,
    body::{note, read_short},
    origin,
};

/// A short answer, read whole.
pub struct Answer {
    /// The whole body.
    pub body: Vec<u8>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Docker-Content-Digest`.
    pub digest: Option<String>,
    /// `Link`, which leads to the next page of a list.
    pub link: Option<String>,
}

/// Reads a short answer whole.
pub(super) fn short(
    mut response: Response<Body>,
    request: Request<'_>,
    limit: u64,
    deadline: &Deadline,
) -> Result<Answer, FetchError> {
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (content_type, digest) = (header("content-type"), header("docker-content-digest"));
    let link = header("link");
    let origin = &request.source.origin;
    let body = read_short(response.body_mut(), limit, deadline, origin, request.what)?;
    Ok(Answer {
        body,
        content_type,
        digest,
        link,
    })
}

/// Where a redirect leads; never from TLS to plain text.
pub(super) fn redirect(
    from: &Uri,
    origin: &Origin,
    response: &Response<Body>,
) -> Result<Uri, FetchError> {
    let location = response
        .headers()
        .get("location")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    // Queries of redirects hold signatures that grant access; they are not shown.
    let shown: String = location
        .split('?')
        .next()
        .unwrap_or("")
        .chars()
        .take(200)
        .collect();
    let refuse = |reason| FetchError::BadRedirect {
        origin: origin.to_string(),
        location: shown,
        reason,
    };
    match origin::locate(from, location) {
        None => Err(refuse("it is not an HTTP URL")),
        Some(uri) if origin.tls && uri.scheme_str() != Some("https") => {
            Err(refuse("it leaves TLS"))
        }
        Some(uri) => Ok(uri),
    }
}

/// Lets successes through and names failures.
pub(super) fn accept(
    response: Response<Body>,
    request: Request<'_>,
    advice: &'static str,
) -> Result<Response<Body>, FetchError> {
    let origin = request.source.origin.to_string();
    let status = response.status().as_u16();
    match status {
        200 | 206 => Ok(response),
        404 => Err(FetchError::NotFound {
            origin,
            what: request.what,
            note: note(response),
        }),
        401 | 403 => Err(FetchError::Denied {
            origin,
            note: note(response),
            advice,
        }),
        _ => {
            let header = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok());
            let retry_after = header
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs);
            Err(FetchError::Status {
                origin,
                status,
                note: note(response),
                retry_after,
            })
        }
    }
}
