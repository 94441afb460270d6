//! Uploads: a blob as a whole, and a manifest.
//!
//! Not tried again by themselves: a registry keeps no half of what we send, and
//! the user who pushes can push again. Protocol: OCI distribution specification
//! 1.1, "pushing", POST then PUT.

use std::io;

use ureq::{
    Body, SendBody,
    http::{Method, Request as HttpRequest, Response, Uri},
};

use super::{
    Client, Deadline, FetchError, Origin, Request, Source, accept, auth, drain, origin, unreachable,
};
use crate::digest::Digest;

/// One upload step.
struct Upload<'a> {
    method: Method,
    uri: &'a Uri,
    media_type: &'a str,
    size: u64,
}

impl Client {
    /// Uploads a blob unless the registry has it.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn push_blob(
        &self,
        source: &Source,
        digest: &Digest,
        size: u64,
        bytes: &mut dyn io::Read,
        deadline: &Deadline,
    ) -> Result<(), FetchError> {
        let head = uri(source, &format!("blobs/{digest}"))?;
        let there = self.upload(source, step(Method::HEAD, &head), None, deadline)?;
        let is_there = there.status() == 200;
        drain(there);
        if is_there {
            return Ok(());
        }
        let start = uri(source, "blobs/uploads/")?;
        let begun = self.upload(source, step(Method::POST, &start), None, deadline)?;
        let begun = self.accept_upload(begun, source)?;
        let location = begun.headers().get("location");
        let location = location.and_then(|value| value.to_str().ok()).unwrap_or("");
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = origin::locate(&start, &format!("{location}{separator}digest={digest}"));
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
        let put = Upload {
            method: Method::PUT,
            uri: &target,
            media_type: "application/octet-stream",
            size,
        };
        let answer = self.upload(source, put, Some(bytes), deadline)?;
        self.accept_upload(answer, source).map(drain)
    }

    /// Uploads a manifest or index under a tag or its digest.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn push_manifest(
        &self,
        source: &Source,
        version: &str,
        media_type: &str,
        bytes: &[u8],
        deadline: &Deadline,
    ) -> Result<(), FetchError> {
        let target = uri(source, &format!("manifests/{version}"))?;
        let put = Upload {
            method: Method::PUT,
            uri: &target,
            media_type,
            size: bytes.len() as u64,
        };
        let answer = self.upload(source, put, Some(&mut &*bytes), deadline)?;
        self.accept_upload(answer, source).map(drain)
    }

    /// Sends one step; authenticates if the registry asks before any body was sent.
    fn upload(
        &self,
        source: &Source,
        step: Upload<'_>,
        body: Option<&mut dyn io::Read>,
        deadline: &Deadline,
    ) -> Result<Response<Body>, FetchError> {
        deadline.check()?;
        let known = self.token(source);
        if let Some(mut body) = body {
            let body = SendBody::from_reader(&mut body);
            return self.send_upload(&step, source, known.as_deref(), body);
        }
        let response = self.send_upload(&step, source, known.as_deref(), SendBody::none())?;
        if response.status() != 401 {
            return Ok(response);
        }
        let headers = response.headers().get_all("www-authenticate").iter();
        let challenge = auth::challenge(headers.filter_map(|value| value.to_str().ok()));
        drain(response);
        let fresh = self.authorize(source, challenge, known.as_deref(), deadline)?;
        self.send_upload(&step, source, fresh.as_deref(), SendBody::none())
    }

    fn send_upload(
        &self,
        step: &Upload<'_>,
        source: &Source,
        authorization: Option<&str>,
        body: SendBody<'_>,
    ) -> Result<Response<Body>, FetchError> {
        let origin = Origin::of_uri(step.uri).unwrap_or_else(|| source.origin.clone());
        let mut builder = HttpRequest::builder().method(&step.method).uri(step.uri);
        if step.method != Method::HEAD {
            builder = builder.header("Content-Length", step.size);
        }
        if !step.media_type.is_empty() {
            builder = builder.header("Content-Type", step.media_type);
        }
        if let Some(authorization) = authorization.filter(|_| origin == source.origin) {
            builder = builder.header("Authorization", authorization);
        }
        let request = builder
            .body(body)
            .map_err(|error| unreachable(&origin, io::Error::other(error)))?;
        self.count();
        let answer = self.agents.of(&origin).run(request);
        answer.map_err(|error| unreachable(&origin, error.into_io()))
    }

    fn accept_upload(
        &self,
        response: Response<Body>,
        source: &Source,
    ) -> Result<Response<Body>, FetchError> {
        if matches!(response.status().as_u16(), 201 | 202) {
            return Ok(response);
        }
        let request = Request {
            source,
            path: "",
            what: "repository",
            accept: None,
            offset: 0,
        };
        accept(response, request, self.advice(source))
    }
}

fn step(method: Method, uri: &Uri) -> Upload<'_> {
    Upload {
        method,
        uri,
        media_type: "",
        size: 0,
    }
}

fn uri(source: &Source, path: &str) -> Result<Uri, FetchError> {
    let text = format!("{}/v2/{}/{path}", source.origin, source.repository);
    text.parse()
        .map_err(|error| unreachable(&source.origin, io::Error::other(error)))
}
