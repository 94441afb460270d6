//! A container image from its registry to a verified root filesystem, inside the guest.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use agent_image::{Config, Puller};
//! use agent_image_registry::Reference;
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
//! The way of an image byte, in the folders beside this one:
//!
//! * `registry` finds the image and fetches it;
//! * `signatures` decides whether the owner accepts it at all;
//! * `unpacking` makes its layers into directories, and those into a root filesystem;
//! * [`Puller::pull`], here, is the story that joins them, as a [`Config`] says, which
//!   [follows](Config::follow) the owner's initdata.
//!
//! Everything blocks, and a [`Puller`] may be shared between threads: bytes are
//! crunched on plain threads, as many as there are CPUs to keep busy.

mod owner_config;
mod puller;
mod settings;

pub use owner_config::{Entries, OwnerConfigError};
pub use puller::{Image, LayerFailure, PullError, PullFailure, Puller};
pub use settings::{Config, ConfigError};
