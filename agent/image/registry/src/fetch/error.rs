//! Why something could not be fetched, in words for users, and whether to try again.

use std::{io, time::Duration};

use super::{Origin, Over, REDIRECTS_MAX};

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No connection, or it broke, or it went silent.
    #[error(
        "cannot get an answer from {origin}; check the registry's name and port, its certificate and the network"
    )]
    Unreachable {
        /// Who was asked.
        origin: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The body broke off or went silent, and trying again did not help.
    #[error("the transfer from {origin} failed after {received} of {size} bytes")]
    Broken {
        /// Who sent it.
        origin: String,
        /// How much arrived.
        received: u64,
        /// How much there should be.
        size: u64,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The whole pull took too long, and waited for the network in the end.
    #[error("the pull did not finish within {} seconds; check the network or raise the limit", .0.as_secs())]
    Deadline(Duration),
    /// Another part of the same pull failed.
    #[error("another part of the pull failed")]
    Cancelled,
    /// 404.
    #[error("{origin} has no such {what}{note}; check the image's name and tag")]
    NotFound {
        /// Who was asked.
        origin: String,
        /// A manifest or a blob.
        what: &'static str,
        /// What the registry adds.
        note: String,
    },
    /// 401 or 403, after authentication if we could.
    #[error("{origin} refuses access{note}; {advice}")]
    Denied {
        /// Who was asked.
        origin: String,
        /// What the registry adds.
        note: String,
        /// What to do.
        advice: &'static str,
    },
    /// Any other status.
    #[error("{origin} answers with status {status}{note}")]
    Status {
        /// Who was asked.
        origin: String,
        /// Its answer.
        status: u16,
        /// What the registry adds.
        note: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Redirects without end.
    #[error("{0} redirects more than {REDIRECTS_MAX} times")]
    TooManyRedirects(String),
    /// A redirect to nowhere, or from TLS to plain text.
    #[error("{origin} redirects to `{location}`, which is not followed: {reason}")]
    BadRedirect {
        /// Who redirects.
        origin: String,
        /// Where to.
        location: String,
        /// Why not.
        reason: &'static str,
    },
    /// A token server that TLS does not protect, or that sends no token.
    #[error("{origin} wants a token from `{realm}`, which {reason}")]
    Token {
        /// The registry.
        origin: String,
        /// The token server.
        realm: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An answer longer than such answers may be.
    #[error("{origin} sends more than {limit} bytes where a {what} was expected")]
    TooLong {
        /// Who sent it.
        origin: String,
        /// What was asked for.
        what: &'static str,
        /// How long it may be.
        limit: u64,
    },
    /// A body of another length than the manifest says.
    #[error("{origin} announces {found} bytes, but the manifest says {expected}")]
    Size {
        /// Who sent it.
        origin: String,
        /// The manifest's size.
        expected: u64,
        /// The announced size.
        found: u64,
    },
    /// A body that goes on after its end.
    #[error("{origin} sends more than the {expected} bytes that the manifest says")]
    Longer {
        /// Who sent it.
        origin: String,
        /// The manifest's size.
        expected: u64,
    },
    /// A body that has an end before its size.
    #[error("{origin} has no more than {received} bytes, but the manifest says {expected}")]
    Shorter {
        /// Who sent it.
        origin: String,
        /// How much arrived before its end.
        received: u64,
        /// The manifest's size.
        expected: u64,
    },
    /// A resumed transfer that continues elsewhere.
    #[error("{origin} was asked to continue at byte {offset} but answers with the range `{range}`")]
    Range {
        /// Who sent it.
        origin: String,
        /// Where to go on.
        offset: u64,
        /// What it sent instead.
        range: String,
    },
}

impl From<Over> for FetchError {
    fn from(over: Over) -> Self {
        match over {
            Over::Late(limit) => Self::Deadline(limit),
            Over::Cancelled => Self::Cancelled,
        }
    }
}

impl FetchError {
    /// No answer from this server.
    #[must_use]
    pub fn unreachable(origin: &Origin, source: io::Error) -> Self {
        Self::Unreachable {
            origin: origin.to_string(),
            source,
        }
    }

    /// Whether asking again later may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !is_lasting(source),
            Self::Broken { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

/// A wrong certificate stays wrong; a name that does not exist does too.
fn is_lasting(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.downcast_ref::<rustls::Error>().is_some() {
            return true;
        }
        if let Some(io) = current.downcast_ref::<io::Error>()
            && let Some(inner) = io.get_ref()
            && (inner.downcast_ref::<rustls::Error>().is_some()
                || inner
                    .downcast_ref::<ureq::Error>()
                    .is_some_and(is_lasting_ureq))
        {
            return true;
        }
        cause = current.source();
    }
    false
}

fn is_lasting_ureq(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_)
        | ureq::Error::Tls(_)
        | ureq::Error::HostNotFound
        | ureq::Error::BadUri(_) => true,
        ureq::Error::Io(error) => is_lasting(error),
        _ => false,
    }
}
