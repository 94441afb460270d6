//! Why the guest cannot start.

use std::{io, path::PathBuf};

use thiserror::Error;

/// The guest cannot start.
#[derive(Debug, Error)]
pub(crate) enum BootError {
    /// A file system cannot be mounted.
    #[error("cannot mount {target:?}")]
    Mount {
        /// Where.
        target: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel does not say which devices there are.
    #[error("cannot read which devices there are")]
    Devices(#[source] io::Error),
    /// The host attached one that no pod has.
    #[error("the host attached the device {vendor:04x}:{device:04x}, which no pod has")]
    Device {
        /// Of the PCI function.
        vendor: u32,
        /// Of the PCI function.
        device: u32,
    },
    /// A switch of the kernel cannot be set.
    #[error("cannot set {name} of the kernel")]
    Switch {
        /// Which, below `/proc/sys`.
        name: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the new root cannot be made.
    #[error("cannot make {path:?} in the new root")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The new root cannot be entered.
    #[error("cannot enter the new root")]
    Enter(#[source] io::Error),
    /// The agent cannot run itself again.
    #[error("cannot run the agent from the new root")]
    Run(#[source] io::Error),
}
