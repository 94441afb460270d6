//! Why a secret cannot be sealed, whichever way.

use agent_keys::{Jwe, ResourceUri};

/// Why a secret cannot be wrapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A key of another length.
    #[error("key `{0}` has not 32 bytes, so it cannot wrap a layer's key")]
    KeyLength(ResourceUri),
    /// Nobody, or more than any reader takes.
    #[error("a JWE has 1 to {max} recipients, not {0}", max = Jwe::RECIPIENTS_MAX)]
    Recipients(usize),
    /// The system's random numbers.
    #[error("the system gives no random numbers")]
    Random,
}
