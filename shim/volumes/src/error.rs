//! Why a mount cannot be had: each sentence names the mount, and ends up in `kubectl describe`.

use std::io;

use thiserror::Error;

use crate::CopyError;

/// Why a mount cannot be had.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The source cannot be looked at.
    #[error("cannot read {mount_source}, mounted at {destination}")]
    Source {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The source is something that only the host can serve.
    #[error(
        "{mount_source}, mounted at {destination}, is a {kind} of the host: a confidential pod cannot use it, so remove the volume"
    )]
    HostOnly {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
        /// What it is.
        kind: &'static str,
    },
    /// A volume of a kind that the guest cannot have.
    #[error(
        "{mount_source}, mounted at {destination}, is a volume of kind {kind}, which a confidential pod cannot use: it can have emptyDir, configMap, secret, projected, downwardAPI and hostPath"
    )]
    Kind {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
        /// The folder of the kubelet that holds such volumes.
        kind: String,
    },
    /// A part of a volume that is not one of the pod's.
    #[error(
        "{mount_source}, mounted at {destination}, belongs to none of the pod's volumes that are there"
    )]
    Unknown {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
    },
    /// A path of the node of which a part is in the guest already.
    #[error(
        "a part of {mount_source}, mounted at {destination}, is in the guest by itself already, and writes to one would not show in the other: mount the whole in the pod's first container, or the same part in each"
    )]
    Overlap {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
    },
    /// Two volumes of one name.
    #[error("{mount_source}, mounted at {destination}, has the name of another volume of the pod")]
    SameName {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
    },
    /// Copying failed.
    #[error("cannot copy {mount_source}, mounted at {destination}, into the guest")]
    Copy {
        /// Host path.
        mount_source: String,
        /// Path in the container.
        destination: String,
        /// The cause.
        #[source]
        source: Box<CopyError>,
    },
}
