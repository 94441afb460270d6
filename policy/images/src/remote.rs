//! Manifests and blobs as a registry has them, for the owner's tools that look at
//! images or change them.
//!
//! The guest has none of this: what it pulls goes through [`agent_image::Puller`], which
//! verifies. Here only the digests of what is fetched are checked, so that a tool
//! works on the bytes that were named. Mirrors are read from but not written to.

use std::{io, sync::OnceLock, time::Duration};

use agent_image::{Config, ConfigError};
use agent_image_registry::{
    ACCEPT, Blob, Client, Deadline, Digest, FetchError, Reference, RegistryError, Request, Source,
    sources,
};

use crate::{document::Document, push::Upload};

/// Largest manifest that registries must accept.
const MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;

/// One repository of a registry.
pub(crate) struct Remote {
    client: Client,
    sources: Vec<Source>,
    /// Which of the sources has what is asked for; known after the first document.
    chosen: OnceLock<usize>,
    deadline: Duration,
}

/// Why a registry does not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Certificates or proxies.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration names nobody to ask.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The transfer.
    #[error("cannot transfer {what}")]
    Transfer {
        /// A document's path or a digest.
        what: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// Where the bytes should go.
    #[error("cannot write what was fetched")]
    Local(#[source] io::Error),
    /// Bytes other than those named.
    #[error("the registry sent other bytes than {0}")]
    Digest(Digest),
}

impl Remote {
    /// Sets up connections to an image's repository; talks to nobody yet.
    ///
    /// # Errors
    /// The configuration, or a name that is not to be asked for.
    pub(crate) fn open(config: &Config, reference: &Reference) -> Result<Self, RemoteError> {
        Ok(Self {
            sources: sources(&config.registries, reference)?,
            client: config.client()?,
            chosen: OnceLock::new(),
            deadline: config.pull_deadline,
        })
    }

    /// The manifest or index of a tag or digest; `None` if there is none.
    ///
    /// # Errors
    /// The transfer, or bytes that are not those of the digest asked for.
    pub(crate) fn manifest(&self, version: &str) -> Result<Option<Document>, RemoteError> {
        let found = self.document(&format!("manifests/{version}"), Some(ACCEPT))?;
        let expected = Digest::parse(version).ok();
        match (&found, expected) {
            (Some(found), Some(expected)) if !expected.is_of(&found.bytes) => {
                Err(RemoteError::Digest(expected))
            }
            _ => Ok(found),
        }
    }

    /// The index of manifests that refer to a digest; `None` if the registry keeps none
    /// (OCI distribution specification 1.1, "listing referrers").
    ///
    /// # Errors
    /// The transfer.
    pub(crate) fn referrers(&self, digest: &Digest) -> Result<Option<Document>, RemoteError> {
        if let Some(found) = self.document(&format!("referrers/{digest}"), None)? {
            return Ok(Some(found));
        }
        self.manifest(&digest.as_str().replacen(':', "-", 1))
    }

    fn document(&self, path: &str, accept: Option<&str>) -> Result<Option<Document>, RemoteError> {
        let deadline = Deadline::within(self.deadline);
        let mut failure = None;
        for (index, source) in self.sources.iter().enumerate() {
            if self.chosen.get().is_some_and(|chosen| *chosen != index) {
                continue;
            }
            let request = Request {
                source,
                path,
                what: "manifest",
                accept,
                offset: 0,
            };
            match self.client.get(request, MANIFEST_MAX_BYTES, &deadline) {
                Ok(answer) => {
                    let _ = self.chosen.set(index);
                    return Ok(Some(Document {
                        media_type: answer.content_type,
                        digest: Digest::sha256(&answer.body),
                        bytes: answer.body,
                    }));
                }
                Err(FetchError::NotFound { .. }) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => Ok(None),
            Some(source) => Err(RemoteError::Transfer {
                what: path.to_owned(),
                source,
            }),
        }
    }

    /// Copies a blob's bytes into `sink`, and checks their number and digest.
    ///
    /// # Errors
    /// The transfer, what the sink says, or other bytes than those named.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        size: u64,
        sink: &mut dyn io::Write,
    ) -> Result<(), RemoteError> {
        let deadline = Deadline::within(self.deadline);
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut blob, mut amount) = self.begin(digest, size, &deadline, &mut buffer)?;
        let mut hasher = digest.hasher();
        while let Some(bytes) = buffer.get(..amount).filter(|bytes| !bytes.is_empty()) {
            hasher.update(bytes);
            sink.write_all(bytes).map_err(RemoteError::Local)?;
            amount = blob.read(&mut buffer).map_err(transfer(digest))?;
        }
        if hasher.finish() == *digest {
            Ok(())
        } else {
            Err(RemoteError::Digest(digest.clone()))
        }
    }

    /// A blob's first bytes, from the source that has the image. Who reads nothing but blobs has
    /// not learnt yet which one that is: the last one's error counts.
    fn begin<'a>(
        &'a self,
        digest: &'a Digest,
        size: u64,
        deadline: &'a Deadline,
        buffer: &mut [u8],
    ) -> Result<(Blob<'a>, usize), RemoteError> {
        let known = self.chosen.get().copied();
        let last = known.unwrap_or(self.sources.len() - 1);
        for index in known.unwrap_or(0)..=last {
            let source = &self.sources[index];
            let mut blob = Blob::new(&self.client, source, digest, size, deadline);
            match blob.read(buffer) {
                Ok(amount) => {
                    let _ = self.chosen.set(index);
                    return Ok((blob, amount));
                }
                Err(error) if index == last => return Err(transfer(digest)(error)),
                Err(_) => {}
            }
        }
        Err(RemoteError::Digest(digest.clone()))
    }

    /// Uploads a blob unless the registry has it.
    ///
    /// # Errors
    /// The transfer; a registry that finds other bytes than those named says so.
    pub(crate) fn push_blob(
        &self,
        digest: &Digest,
        size: u64,
        bytes: &mut dyn io::Read,
    ) -> Result<(), RemoteError> {
        let deadline = Deadline::within(self.deadline);
        self.upload(&deadline)
            .blob(digest, size, bytes)
            .map_err(transfer(digest))
    }

    /// Uploads a manifest or index under a tag or its digest; its blobs come first.
    ///
    /// # Errors
    /// The transfer.
    pub(crate) fn push_manifest(
        &self,
        version: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RemoteError> {
        let deadline = Deadline::within(self.deadline);
        self.upload(&deadline)
            .manifest(version, media_type, bytes)
            .map_err(transfer(version))
    }

    /// To the registry itself, which comes after its mirrors.
    fn upload<'a>(&'a self, deadline: &'a Deadline) -> Upload<'a> {
        Upload {
            client: &self.client,
            source: &self.sources[self.sources.len() - 1],
            deadline,
        }
    }
}

fn transfer(what: impl ToString) -> impl FnOnce(FetchError) -> RemoteError {
    let what = what.to_string();
    move |source| RemoteError::Transfer { what, source }
}
