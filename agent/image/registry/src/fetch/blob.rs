//! A blob as a stream that survives broken connections.
//!
//! When a transfer breaks, the next request continues at the byte where it broke,
//! so that whoever hashes the stream keeps its state. A server that ignores the
//! range sends everything again, and what was already read is skipped.
//!
//! Only tries that bring nothing count as failures: some proxies close each transfer
//! after so many bytes, and a pull through them goes on as long as its time allows.

use std::io::{self, Read};

use ureq::{Body, BodyReader, http::Response};

use super::{Client, Deadline, FetchError, RETRIES_MAX, Request, Source, back_off};
use crate::digest::Digest;

/// A try that brought this much is followed by the next one without a pause.
const MUCH_BYTES: u64 = 1024 * 1024;

/// A blob of known size, read once from its start to its end.
pub struct Blob<'a> {
    client: &'a Client,
    source: &'a Source,
    path: String,
    size: u64,
    deadline: &'a Deadline,
    body: Option<BodyReader<'static>>,
    offset: u64,
    failures: u32,
    failed_at: u64,
}

impl<'a> Blob<'a> {
    /// A blob of a source; asks for nothing yet.
    #[must_use]
    pub fn new(
        client: &'a Client,
        source: &'a Source,
        digest: &Digest,
        size: u64,
        deadline: &'a Deadline,
    ) -> Self {
        let path = format!("blobs/{digest}");
        Self {
            client,
            source,
            path,
            size,
            deadline,
            body: None,
            offset: 0,
            failures: 0,
            failed_at: 0,
        }
    }

    /// Reads on; 0 at the end, which is exactly at the size.
    ///
    /// # Errors
    /// The transfer broke and did not go on.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FetchError> {
        loop {
            self.deadline.check()?;
            match self.read_once(buffer) {
                Ok(amount) => {
                    self.offset += amount as u64;
                    return Ok(amount);
                }
                Err(error) => self.recover(error)?,
            }
        }
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize, FetchError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open()?,
        };
        let left = self.size - self.offset;
        let amount = if left == 0 {
            // One byte more tells a longer body, and lets the connection go back to the pool.
            let extra = body.read(&mut [0]).map_err(|error| self.broken(error))?;
            if extra > 0 {
                return Err(FetchError::Longer {
                    origin: self.source.origin.to_string(),
                    expected: self.size,
                });
            }
            0
        } else {
            let wanted = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let buffer = buffer.get_mut(..wanted).unwrap_or_default();
            let amount = body.read(buffer).map_err(|error| self.broken(error))?;
            if amount == 0 && wanted > 0 {
                return Err(self.broken(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the body ended early",
                )));
            }
            amount
        };
        self.body = Some(body);
        Ok(amount)
    }

    fn open(&self) -> Result<BodyReader<'static>, FetchError> {
        let request = Request {
            source: self.source,
            path: &self.path,
            what: "blob",
            accept: None,
            offset: self.offset,
        };
        let response = match self.client.open(request, self.deadline) {
            // Nothing comes after what was read (RFC 9110, 15.5.17).
            Err(FetchError::Status {
                origin,
                status: 416,
                ..
            }) if self.offset > 0 => {
                return Err(FetchError::Shorter {
                    origin,
                    received: self.offset,
                    expected: self.size,
                });
            }
            answer => answer?,
        };
        let mut skip = 0;
        if response.status() == 206 {
            self.check_range(&response)?;
        } else {
            skip = self.offset;
            if let Some(found) = response
                .body()
                .content_length()
                .filter(|found| *found != self.size)
            {
                return Err(self.size_error(found));
            }
        }
        let mut body = response.into_body().into_reader();
        let mut discarded = [0; 16 * 1024];
        while skip > 0 {
            self.deadline.check()?;
            let wanted = discarded
                .len()
                .min(usize::try_from(skip).unwrap_or(usize::MAX));
            let amount = body
                .read(&mut discarded[..wanted])
                .map_err(|error| self.broken(error))?;
            if amount == 0 {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
            skip -= amount as u64;
        }
        Ok(body)
    }

    /// `bytes <first>-<last>/<size or *>` must say exactly what was asked for.
    fn check_range(&self, response: &Response<Body>) -> Result<(), FetchError> {
        let range = response
            .headers()
            .get("content-range")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        let expected = format!("bytes {}-{}/", self.offset, self.size.saturating_sub(1));
        let whole = range.strip_prefix(&expected);
        if self.offset > 0
            && whole.is_some_and(|whole| whole == "*" || whole.parse() == Ok(self.size))
        {
            return Ok(());
        }
        let range = range.chars().take(100).collect();
        Err(FetchError::Range {
            origin: self.source.origin.to_string(),
            offset: self.offset,
            range,
        })
    }

    fn recover(&mut self, error: FetchError) -> Result<(), FetchError> {
        self.deadline.check()?;
        let brought = self.offset.saturating_sub(self.failed_at);
        if brought > 0 {
            self.failures = 0;
        }
        if !error.is_transient() || self.failures >= RETRIES_MAX {
            return Err(error);
        }
        self.failures += 1;
        self.failed_at = self.offset;
        tracing::debug!(%error, offset = self.offset, failures = self.failures, "transfer broke, resuming");
        if brought >= MUCH_BYTES {
            return Ok(());
        }
        Ok(self.deadline.pause(back_off(self.failures, &error))?)
    }

    fn broken(&self, source: io::Error) -> FetchError {
        let origin = self.source.origin.to_string();
        FetchError::Broken {
            origin,
            received: self.offset,
            size: self.size,
            source,
        }
    }

    fn size_error(&self, found: u64) -> FetchError {
        FetchError::Size {
            origin: self.source.origin.to_string(),
            expected: self.size,
            found,
        }
    }
}
