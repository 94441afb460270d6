//! The owner's key broker: releases resources to guests that prove what they run.
//!
//! It speaks version 0.4.0 of the protocol of the key broker service of Confidential Containers
//! (`/auth`, `/attest`, `/resource`), and nothing else over the network: whoever administers it
//! writes files in its directory. Guests, networks and the disk that holds the store are distrusted;
//! the key of the store and the owner's files are not.
//!
//! | module | what |
//! |---|---|
//! | [`identity`] | the broker's TLS identity and token key |
//! | [`store`] | resources, encrypted, in one directory |
//! | [`rules`] | what the owner accepts |
//! | `appraise` | whether evidence is affirming |
//! | [`token`] | what an attested guest gets |
//! | [`broker`] | every decision |
//! | [`server`] | HTTP and TLS |
//! | [`audit`] | what was decided, and why |

mod answer;
mod appraise;
pub mod audit;
pub mod broker;
mod clock;
pub mod configuration;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
mod peers;
mod rate;
pub mod refusal;
mod rego;
mod repeats;
pub mod rules;
pub mod server;
mod sessions;
pub mod store;
pub mod store_key;
pub mod token;
pub mod trust;

pub use rego::RegoError;
