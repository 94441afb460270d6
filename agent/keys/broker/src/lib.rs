//! The guest's side of a key broker: proves itself once, then asks for keys.
//!
//! [`Broker`] is a `KeyProvider` over the protocol of the key broker service of
//! Confidential Containers. Its address and certificate are the owner's: they come from
//! initdata ([`Addresses`]), which the hardware's report holds the digest of; where it names
//! several, [`Brokers`] knows which one has a resource.
//!
//! The network and the host between guest and broker are hostile, and the broker's answers
//! are bounded in size and time. TLS with the owner's certificate says who answers; secrets
//! are sealed for a key of this guest besides. The guest's clock, which the host can set,
//! decides nothing that matters: a challenge makes evidence fresh, and how long a session is
//! used again is counted by the monotonic clock.

mod address;
mod broker;
mod brokers;
mod connection;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guest;
mod session;

pub use address::{Address, AddressError, Addresses};
pub use broker::{Broker, Unusable};
pub use brokers::Brokers;
pub use guest::{Guest, LogSource, ProofError};
