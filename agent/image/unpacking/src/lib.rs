//! A layer from its blob to a directory, and directories to a root filesystem.
//!
//! What comes in is hostile: the blob is the registry's until its digest matches, the
//! archive in it is anybody's even then. What goes out is verified: no byte of a layer
//! is in the store's finished part before blob digest, exact size, MAC (if it is
//! encrypted) and diff id have all matched.
//!
//! * `layer` runs one layer through its stages;
//! * `tar` reads archives, and `tree` makes them into directories for overlayfs;
//! * `store` keeps finished layers, and settles those that depend on others;
//! * `assemble` mounts them, with `mount`;
//! * `report` counts what was done.

mod assemble;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod layer;
mod mount;
mod report;
mod store;
mod tar;
mod tree;

pub use assemble::{AssembleError, RootFs, assemble};
pub use layer::{Expected, Form, LayerError, parse_media_type, unpack};
pub use mount::MountError;
pub use report::{LayerReport, Meter, Progress};
pub use store::{
    Claim, ClaimError, Found, Key, Layer, SettleError, Staging, Store, StoreError, chain_ids,
    settle,
};
pub use tar::TarError;
pub use tree::{Notes, TreeError, open_root, remove_directory, remove_tree};
