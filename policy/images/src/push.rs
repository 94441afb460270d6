//! Uploads: a blob as a whole, and a manifest.
//!
//! Not tried again by themselves: a registry keeps no half of what we send, and
//! the user who pushes can push again. Protocol: OCI distribution specification
//! 1.1, "pushing", POST then PUT.

use std::io;

use agent_image_registry::{
    Client, Deadline, Digest, FetchError, Origin, Request, Source, drain, locate,
};
use ureq::{
    Body, SendBody,
    http::{Method, Request as HttpRequest, Response, Uri},
};

/// Where and for how long something is uploaded.
pub(crate) struct Upload<'a> {
    pub(crate) client: &'a Client,
    pub(crate) source: &'a Source,
    pub(crate) deadline: &'a Deadline,
}

/// One upload step.
struct Step<'a> {
    method: Method,
    uri: &'a Uri,
    media_type: &'a str,
    size: u64,
}

impl Upload<'_> {
    /// Uploads a blob unless the registry has it.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        size: u64,
        bytes: &mut dyn io::Read,
    ) -> Result<(), FetchError> {
        let source = self.source;
        let head = uri(source, &format!("blobs/{digest}"))?;
        let there = self.step(bare(Method::HEAD, &head), None)?;
        let is_there = there.status() == 200;
        drain(there);
        if is_there {
            return Ok(());
        }
        let start = uri(source, "blobs/uploads/")?;
        let begun = self.step(bare(Method::POST, &start), None)?;
        let begun = self.accept(begun)?;
        let location = begun.headers().get("location");
        let location = location.and_then(|value| value.to_str().ok()).unwrap_or("");
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = locate(&start, &format!("{location}{separator}digest={digest}"));
        let refuse = |reason| FetchError::BadRedirect {
            origin: source.origin.to_string(),
            location: location
                .chars()
                .take_while(|c| *c != '?')
                .take(200)
                .collect(),
            reason,
        };
        let target = target.ok_or_else(|| refuse("it is not an HTTP URL"))?;
        if source.origin.tls && target.scheme_str() != Some("https") {
            return Err(refuse("it leaves TLS"));
        }
        drain(begun);
        let put = Step {
            method: Method::PUT,
            uri: &target,
            media_type: "application/octet-stream",
            size,
        };
        let answer = self.step(put, Some(bytes))?;
        self.accept(answer).map(drain)
    }

    /// Uploads a manifest or index under a tag or its digest.
    pub(crate) fn manifest(
        &self,
        version: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), FetchError> {
        let target = uri(self.source, &format!("manifests/{version}"))?;
        let put = Step {
            method: Method::PUT,
            uri: &target,
            media_type,
            size: bytes.len() as u64,
        };
        let answer = self.step(put, Some(&mut &*bytes))?;
        self.accept(answer).map(drain)
    }

    /// Sends one step; authenticates if the registry asks before any body was sent.
    fn step(
        &self,
        step: Step<'_>,
        body: Option<&mut dyn io::Read>,
    ) -> Result<Response<Body>, FetchError> {
        let known = self.client.authorization(self.source);
        if let Some(mut body) = body {
            let body = SendBody::from_reader(&mut body);
            return self.send(&step, known.as_deref(), body);
        }
        let response = self.send(&step, known.as_deref(), SendBody::none())?;
        if response.status() != 401 {
            return Ok(response);
        }
        let fresh =
            self.client
                .authorize(self.source, response, known.as_deref(), self.deadline)?;
        self.send(&step, fresh.as_deref(), SendBody::none())
    }

    fn send(
        &self,
        step: &Step<'_>,
        authorization: Option<&str>,
        body: SendBody<'_>,
    ) -> Result<Response<Body>, FetchError> {
        let origin = Origin::of_uri(step.uri).unwrap_or_else(|| self.source.origin.clone());
        let mut builder = HttpRequest::builder().method(&step.method).uri(step.uri);
        if step.method != Method::HEAD {
            builder = builder.header("Content-Length", step.size);
        }
        if !step.media_type.is_empty() {
            builder = builder.header("Content-Type", step.media_type);
        }
        if let Some(authorization) = authorization.filter(|_| origin == self.source.origin) {
            builder = builder.header("Authorization", authorization);
        }
        let request = builder
            .body(body)
            .map_err(|error| FetchError::unreachable(&origin, io::Error::other(error)))?;
        self.client.run(&origin, request, self.deadline)
    }

    fn accept(&self, response: Response<Body>) -> Result<Response<Body>, FetchError> {
        if matches!(response.status().as_u16(), 201 | 202) {
            return Ok(response);
        }
        let request = Request {
            source: self.source,
            path: "",
            what: "repository",
            accept: None,
            offset: 0,
        };
        self.client.accept(response, request)
    }
}

fn bare(method: Method, uri: &Uri) -> Step<'_> {
    Step {
        method,
        uri,
        media_type: "",
        size: 0,
    }
}

fn uri(source: &Source, path: &str) -> Result<Uri, FetchError> {
    let text = format!("{}/v2/{}/{path}", source.origin, source.repository);
    text.parse()
        .map_err(|error| FetchError::unreachable(&source.origin, io::Error::other(error)))
}
