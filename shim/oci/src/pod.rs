//! Which pod a container belongs to and which part it plays there.
//!
//! containerd and CRI-O say so by annotations of the OCI spec. A container without
//! them (`ctr run`) is a pod of one.

use agent_protocol::id::{ContainerId, IdError, SandboxId};
use thiserror::Error;

use crate::Spec;

/// The part a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The pause container: its life is the pod's.
    Sandbox,
    /// A container in a pod that exists already.
    Container,
    /// Pod and container in one, as without CRI.
    Single,
}

impl Role {
    /// The value of `io.katacontainers.pkg.oci.container_type` in the guest.
    pub fn container_type(self) -> &'static str {
        match self {
            Self::Sandbox => "pod_sandbox",
            Self::Container => "pod_container",
            Self::Single => "single_container",
        }
    }

    /// Whether creating the container creates the VM.
    pub fn owns_sandbox(self) -> bool {
        !matches!(self, Self::Container)
    }
}

/// A container's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Its pod.
    pub sandbox: SandboxId,
    /// Its part.
    pub role: Role,
}

/// Why the annotations do not say which pod a container is of.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MembershipError {
    /// The type annotation has a value that no runtime writes.
    #[error("annotation {key} of container {id} is {value:?}: expected sandbox or container")]
    UnknownType {
        /// The container.
        id: String,
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A pod's container does not name its pod.
    #[error(
        "container {id} is of a pod but no annotation names its sandbox: io.kubernetes.cri.sandbox-id is missing"
    )]
    NoSandbox {
        /// The container.
        id: String,
    },
    /// The sandbox id is not an id.
    #[error("sandbox id {value:?} of container {id} is invalid")]
    BadSandbox {
        /// The container.
        id: String,
        /// The value.
        value: String,
        /// The broken rule.
        #[source]
        source: IdError,
    },
}

const TYPE_KEYS: [&str; 3] = [
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri-o.ContainerType",
    "io.kubernetes.docker.type",
];
const SANDBOX_KEYS: [&str; 2] = [
    "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri-o.SandboxID",
];
const IMAGE_KEYS: [&str; 2] = [
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri-o.ImageName",
];

/// The image reference that the annotations name.
pub fn image_name(spec: &Spec) -> Option<&str> {
    IMAGE_KEYS.iter().find_map(|key| spec.annotation(key))
}

impl Membership {
    /// Reads the annotations of a container's spec.
    ///
    /// # Errors
    ///
    /// [`MembershipError`] names the annotation that is missing or wrong.
    pub fn of(id: &ContainerId, spec: &Spec) -> Result<Self, MembershipError> {
        let found = TYPE_KEYS
            .iter()
            .find_map(|key| spec.annotation(key).map(|value| (*key, value)));
        let role = match found {
            None => Role::Single,
            Some((_, "sandbox" | "podsandbox")) => Role::Sandbox,
            Some((_, "container")) => Role::Container,
            Some((key, value)) => {
                return Err(MembershipError::UnknownType {
                    id: id.to_string(),
                    key,
                    value: value.to_owned(),
                });
            }
        };
        let named = SANDBOX_KEYS.iter().find_map(|key| spec.annotation(key));
        let sandbox = match (role, named) {
            (Role::Container, None) => {
                return Err(MembershipError::NoSandbox { id: id.to_string() });
            }
            (Role::Container, Some(sandbox)) => sandbox,
            // A sandbox is named after its own container.
            (Role::Sandbox | Role::Single, _) => id.as_str(),
        };
        let sandbox = SandboxId::parse(sandbox).map_err(|source| MembershipError::BadSandbox {
            id: id.to_string(),
            value: sandbox.to_owned(),
            source,
        })?;
        Ok(Self { sandbox, role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(annotations: &[(&str, &str)]) -> Result<Membership, MembershipError> {
        let mut spec = Spec::default();
        for (key, value) in annotations {
            spec.annotations
                .insert((*key).to_owned(), (*value).to_owned());
        }
        Membership::of(&ContainerId::parse("c1").unwrap(), &spec)
    }

    #[test]
    fn annotations_decide_role_and_pod() {
        type Case = (&'static [(&'static str, &'static str)], Role, &'static str);
        let cases: [Case; 4] = [
            (&[], Role::Single, "c1"),
            (
                &[("io.kubernetes.cri.container-type", "sandbox")],
                Role::Sandbox,
                "c1",
            ),
            (
                &[
                    ("io.kubernetes.cri.container-type", "container"),
                    ("io.kubernetes.cri.sandbox-id", "s1"),
                ],
                Role::Container,
                "s1",
            ),
            (
                &[
                    ("io.kubernetes.cri-o.ContainerType", "container"),
                    ("io.kubernetes.cri-o.SandboxID", "s2"),
                ],
                Role::Container,
                "s2",
            ),
        ];
        for (annotations, role, sandbox) in cases {
            let found = membership(annotations).unwrap();
            assert_eq!(found.role, role);
            assert_eq!(found.sandbox.as_str(), sandbox);
        }
    }

    #[test]
    fn a_container_without_a_usable_pod_is_refused() {
        let container = ("io.kubernetes.cri.container-type", "container");
        assert!(matches!(
            membership(&[container]),
            Err(MembershipError::NoSandbox { .. })
        ));
        assert!(matches!(
            membership(&[container, ("io.kubernetes.cri.sandbox-id", "../x")]),
            Err(MembershipError::BadSandbox { .. })
        ));
        assert!(matches!(
            membership(&[("io.kubernetes.cri.container-type", "pod")]),
            Err(MembershipError::UnknownType { .. })
        ));
    }
}
