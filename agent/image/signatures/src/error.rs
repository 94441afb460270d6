//! Why an image is not accepted, from the policy's scope down to each signature's check.

use std::{fmt, io};

use agent_image_registry::{Digest, DocumentError, FetchError};

use super::{bundle::BundleError, openpgp::OpenPgpError, payload::PayloadError};

/// Why the signature policy does not accept an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "the signature policy does not accept it: requirement {number} of {count} (`{kind}`) of the {scope} is not met"
)]
pub struct SignatureError {
    pub(super) scope: String,
    pub(super) number: usize,
    pub(super) count: usize,
    pub(super) kind: &'static str,
    #[source]
    pub(super) cause: Box<RequirementFailure>,
}

impl SignatureError {
    /// What is wrong.
    #[must_use]
    pub fn cause(&self) -> &RequirementFailure {
        &self.cause
    }
}

/// Why one requirement is not met.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequirementFailure {
    /// It never is.
    #[error("it rejects every image")]
    Rejected,
    /// A key that the owner's policy names is not there, or no key.
    #[error("its key {name} cannot be used")]
    Key {
        /// Where the policy says that it is.
        name: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing says where simple signatures are.
    #[error(
        "no lookaside store is configured for the image, so there is nowhere to look for its signatures"
    )]
    NoLookaside,
    /// No signature anywhere.
    #[error("the image has no signature; looked for {0}")]
    Unsigned(String),
    /// Signatures, but none that counts.
    #[error("none of its signatures is acceptable: {}", list(.0))]
    Refused(Vec<Refused>),
    /// The pull's time was over.
    #[error("its signatures cannot be fetched")]
    Fetch(#[source] FetchError),
    /// The guest does not know what day it is.
    #[error("the clock is before 1970")]
    Clock,
}

/// A signature that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it was found.
    pub name: String,
    /// The check that it failed.
    pub reason: String,
    /// The kind of that check, without anything of the signature's content.
    pub told: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// The first few, which are enough to see what is wrong.
fn list(refused: &[Refused]) -> String {
    const SHOWN_MAX: usize = 4;
    let mut shown: Vec<String> = refused
        .iter()
        .take(SHOWN_MAX)
        .map(Refused::to_string)
        .collect();
    let more = refused.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join("; ")
}

impl Refusal {
    /// Of which kind the failed check is.
    pub(super) fn told(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Size(_) | Self::Fetch(_) => "it cannot be had",
            Self::Document(_) | Self::NoManifest | Self::Annotation(_) => {
                "its manifest cannot be read"
            }
            Self::Content(_) => "its content does not have the digest that it is stored under",
            Self::TooMany(_) => "there are too many signatures, and none of the others counts",
            Self::OpenPgp(_) => "its OpenPGP signature does not count",
            Self::Payload(_) => "what it signs cannot be read",
            Self::Bundle(_) => "its bundle does not count",
            Self::Unverified => "none of the requirement's keys made it, or it was changed",
            Self::Digest(_) => "it is for a manifest which is not this image's",
            Self::Name { .. } | Self::Unnamed(_) => "it is for another name than this image's",
        }
    }
}

/// Why one signature does not count.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it cannot be read")]
    File(#[source] io::Error),
    #[error("it has more than {0} bytes")]
    Size(u64),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("it is not a manifest that lists signatures")]
    NoManifest,
    #[error("its content does not have the digest {0}")]
    Content(Digest),
    #[error("its annotation `{0}` is missing or not base64")]
    Annotation(&'static str),
    #[error("there are more than {0} signatures, and none of the others counts")]
    TooMany(usize),
    #[error(transparent)]
    OpenPgp(#[from] OpenPgpError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("none of the requirement's keys made it, or it was changed")]
    Unverified,
    #[error("it is for the manifest {0}, which is not this image's")]
    Digest(Digest),
    #[error("it is for `{signed}`, but must be for {demand}")]
    Name { signed: String, demand: String },
    #[error("it names no tag, but must be for {0}")]
    Unnamed(String),
}
