//! One line of the log.

use std::fmt;

/// Longest log kept or read, in bytes.
pub const MAX_LOG_LEN: usize = 4 * 1024 * 1024;
/// Longest content of one event, in bytes.
pub const MAX_CONTENT_LEN: usize = 16 * 1024;
/// Domain of the events that the guest makes on its own.
pub const DOMAIN: &str = "kata-cc";

const MAX_NAME_LEN: usize = 256;

/// An event cannot be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Domain or operation is empty, too long, or holds something else than
    /// printable ASCII without space.
    #[error(
        "an event's domain and operation are words of at most {MAX_NAME_LEN} printable characters"
    )]
    Name,
    /// The content holds a control character.
    #[error("an event's content is one line of text")]
    Content,
    /// The content is too long.
    #[error("an event's content of {0} bytes is longer than {MAX_CONTENT_LEN}")]
    TooLong(usize),
    /// The log is full.
    #[error("the measurement log is full at {MAX_LOG_LEN} bytes")]
    Full,
}

/// What an entry of ours describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// The guest image that booted.
    Boot,
    /// The initdata that was found.
    Initdata,
    /// The policy that was loaded.
    Policy,
    /// An image: digests of manifest, config and layers.
    Image,
    /// A container's final OCI spec.
    Container,
    /// A process started in a container.
    Exec,
    /// Files of the host that a container sees.
    Files,
    /// Something that the host changed while containers run.
    Change,
    /// A request that was denied.
    Denial,
}

/// One line of the log: who says so, what was done, to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    domain: String,
    operation: String,
    content: String,
}

impl Operation {
    /// Its name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Initdata => "initdata",
            Self::Policy => "policy",
            Self::Image => "image",
            Self::Container => "container",
            Self::Exec => "exec",
            Self::Files => "files",
            Self::Change => "change",
            Self::Denial => "denial",
        }
    }
}

impl Event {
    /// An event of any domain.
    ///
    /// # Errors
    ///
    /// [`EventError`] if a part would not survive being written on one line.
    pub fn parse(domain: &str, operation: &str, content: &str) -> Result<Self, EventError> {
        let is_word = |name: &str| {
            (1..=MAX_NAME_LEN).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_word(domain) || !is_word(operation) {
            return Err(EventError::Name);
        }
        if content.len() > MAX_CONTENT_LEN {
            return Err(EventError::TooLong(content.len()));
        }
        if content.chars().any(char::is_control) {
            return Err(EventError::Content);
        }
        Ok(Self {
            domain: domain.to_owned(),
            operation: operation.to_owned(),
            content: content.to_owned(),
        })
    }

    /// An event of our own domain.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the content would not survive being written on one line.
    pub fn of(operation: Operation, content: &str) -> Result<Self, EventError> {
        Self::parse(DOMAIN, operation.name(), content)
    }

    /// Who says so.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What was done.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// To what.
    pub fn content(&self) -> &str {
        &self.content
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.domain, self.operation, self.content)
    }
}
