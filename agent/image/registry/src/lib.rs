//! What registries have: references, digests, manifests, configurations, and how they
//! are fetched.
//!
//! Nobody is trusted here but the configuration: the reference is the host's, every
//! answer is the registry's or the network's. [`resolve`] turns a reference into a
//! manifest and a configuration whose digests match; blobs are handed out as they come
//! ([`Blob`]), and whoever reads one checks its digest.
//!
//! * `reference`, `digest`, `document`, `config` and `json` parse;
//! * `registries` and `registries_conf` say which server is really asked;
//! * `fetch` speaks with it, and knows nothing about images;
//! * `resolved` puts them together.

mod config;
mod digest;
mod document;
mod fetch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod reference;
mod registries;
mod registries_conf;
mod resolved;
mod sentence;

pub use config::{ConfigFile, ImageConfig};
pub use digest::{Digest, DigestError, Hasher};
pub use document::{ACCEPT, Descriptor, Document, DocumentError, IndexEntry, Manifest, Platform};
pub use fetch::{
    AgentConfig, AgentError, Agents, Answer, Blob, Client, Credential, Credentials,
    CredentialsError, Deadline, FetchError, Origin, Over, Request, Source, drain, locate,
};
pub use json::UniqueMap;
pub use reference::{Reference, ReferenceError, is_host, is_repository};
pub use registries::{Mirror, Registry, RegistryError, sources};
pub use registries_conf::RegistriesError;
pub use resolved::{Original, ResolveError, Resolved, resolve};
pub use sentence::sentence;
