//! Why a message is not a valid request, and what the guest does not offer.

use agent_protocol::{
    id::{ContainerId, IdError},
    initdata::PolicyError,
    path::PathError,
};
use thiserror::Error;

/// Why a message is not a valid request. The host is at fault.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The container's id breaks the rules for ids.
    #[error("container id is not valid")]
    ContainerId(#[source] IdError),
    /// The exec id breaks the rules for ids.
    #[error("exec id is not valid")]
    ExecId(#[source] IdError),
    /// The sandbox's id breaks the rules for ids.
    #[error("sandbox id is not valid")]
    SandboxId(#[source] IdError),
    /// A field that must be there is empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field holds a value that has no meaning.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// A field is longer than any sensible value.
    #[error("{field} holds more than {max} entries or bytes")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// The most it may hold.
        max: usize,
    },
    /// A field is not a path in the guest that may be used.
    #[error("{field} is not a usable path")]
    Path {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
    /// The guest does not offer what is asked for.
    #[error("{0}")]
    Unsupported(Unsupported),
    /// Not a policy's text.
    #[error("policy is not valid")]
    Policy(#[source] PolicyError),
    /// The spec is not one that the OCI runtime specification allows.
    #[error("OCI spec is not valid")]
    Spec(#[source] serde_json::Error),
}

/// What the guest does not offer, and why.
#[derive(Debug, Error)]
pub enum Unsupported {
    /// Hooks would run programs that the host chose.
    #[error("hooks in the OCI spec are not supported in the guest: remove them")]
    Hooks,
    /// Devices cannot be handed to a running guest.
    #[error("devices are not supported in the guest: {0:?} was asked for")]
    Device(String),
    /// A user namespace of its own.
    #[error(
        "user namespaces are not supported in the guest: set hostUsers to true or leave it out"
    )]
    UserNamespace,
    /// A mount from somewhere that containers may not see.
    #[error(
        "mount of {destination:?} is refused: its source must lie below \
         /run/kata-containers/shared/containers or /run/kata-containers/sandbox"
    )]
    MountSource {
        /// Where it would be mounted.
        destination: String,
    },
    /// A file system that containers may not mount.
    #[error("mount of {destination:?} is refused: file system type {kind:?} is not allowed")]
    MountType {
        /// Where it would be mounted.
        destination: String,
        /// The type asked for.
        kind: String,
    },
    /// A storage driver that the guest does not have.
    #[error(
        "storage driver {0:?} is not supported: the guest has image_guest_pull, ephemeral and local"
    )]
    StorageDriver(String),
    /// A container whose root does not come from an image.
    #[error(
        "container has no image_guest_pull storage: images are pulled in the guest, \
         use the kata-cc snapshotter or the image-name annotation"
    )]
    NoImage,
    /// Kernel modules are measured with the guest image.
    #[error("kernel modules cannot be loaded on request")]
    KernelModules,
    /// Programs of the guest image that would run around a container.
    #[error("guest hooks are not supported")]
    GuestHooks,
    /// A container whose directory would be one of the pod's own.
    #[error("container id {0} is not usable: the pod's own directories have this name")]
    ReservedId(ContainerId),
    /// Mounts between containers.
    #[error("shared mounts between containers are not supported")]
    SharedMounts,
    /// A kernel setting that is not the pod's own.
    #[error("sysctl {0:?} is not one that a pod may set")]
    Sysctl(String),
    /// A capability that containers in the guest do not get.
    #[error("capability {0:?} is not given to containers: remove it")]
    Capability(String),
    /// A part of a system call filter that the guest cannot apply.
    #[error("the seccomp profile cannot be applied: the guest has no {0:?}")]
    Seccomp(String),
    /// Streams that bypass the RPC.
    #[error("stdio ports are not supported: streams go through the agent's calls")]
    StdioPorts,
}

impl From<Unsupported> for RequestError {
    fn from(unsupported: Unsupported) -> Self {
        Self::Unsupported(unsupported)
    }
}
