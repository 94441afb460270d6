//! A container image from its registry to a verified root filesystem, inside the guest.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use agent_image::{Config, Puller, Reference};
//!
//! let puller = Puller::build(Config::default())?;
//! let image = puller.pull(&Reference::parse("registry.example/app:1")?)?;
//! let rootfs = puller.assemble(&image, "/run/bundle".as_ref())?;
//! println!("{} is at {}", image.manifest_digest, rootfs.path().display());
//! rootfs.unmount()?;
//! # Ok(()) }
//! ```
//!
//! What comes in is hostile: the reference is the host's, every answer the
//! registry's or the network's. What goes out is verified: no byte of an image is
//! in the store's finished part, let alone visible to a workload, before manifest,
//! configuration, blob digest, exact size and diff id have all matched.
//!
//! Where to start reading:
//!
//! * [`Puller::pull`] is the story of a pull;
//! * `fetch` speaks with registries, and knows nothing about images;
//! * `signature` decides whether the owner accepts the image at all;
//! * `layer` runs one layer through its stages;
//! * `tar` reads archives, and `tree` makes them into directories for overlayfs;
//! * `store` keeps finished layers, and settles those that depend on others;
//! * `assemble` mounts them.
//!
//! Everything blocks, and a [`Puller`] may be shared between threads: bytes are
//! crunched on plain threads, as many as there are CPUs to keep busy.

mod assemble;
mod config;
mod digest;
mod document;
mod fetch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod layer;
mod mount;
mod puller;
mod reference;
mod registries;
mod registries_conf;
mod remote;
mod report;
mod resolved;
mod sentence;
mod settings;
mod signature;
mod store;
mod tar;
mod tree;

pub use assemble::{AssembleError, RootFs};
pub use config::ImageConfig;
pub use digest::{Digest, DigestError};
pub use document::DocumentError;
pub use fetch::{AgentError, Credential, Credentials, CredentialsError, FetchError};
pub use layer::LayerError;
pub use mount::MountError;
pub use puller::{Image, LayerFailure, PullError, PullFailure, Puller};
pub use reference::{Reference, ReferenceError};
pub use registries::{Mirror, Registry, RegistryError};
pub use registries_conf::RegistriesError;
pub use remote::{RawManifest, Remote, RemoteError};
pub use report::{LayerReport, Progress};
pub use resolved::ResolveError;
pub use settings::{Config, ConfigError};
pub use signature::{
    AcceptedSignature, Lookaside, LookasideError, PolicyError, Refused, RequirementFailure,
    SignatureError, SignaturePolicy,
};
pub use store::{SettleError, StoreError};
pub use tar::TarError;
pub use tree::TreeError;
