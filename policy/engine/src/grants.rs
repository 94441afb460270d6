//! What a guest refuses unless its owner allows it by name.

use std::collections::BTreeSet;

use crate::document::Document;

/// Exceptions. They come with a [`Permit`](crate::Permit), and what uses one says so in the
/// log, by a mark in the entry of the container that it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Files of the host may cover paths at which an image has content.
    pub host_files_cover: bool,
    /// Files of the host may be replaced once they are there.
    pub host_files_change: bool,
    /// Containers may ask for evidence.
    pub evidence: bool,
    /// Containers may open sockets of `AF_VSOCK`.
    pub vsock: bool,
    /// Capabilities that no container has otherwise, by name (`CAP_SYS_TIME`).
    pub capabilities: BTreeSet<String>,
}

impl From<&Document> for Grants {
    /// What a document grants. Capabilities are granted to the containers that it gives them,
    /// and each container is held against them.
    fn from(document: &Document) -> Self {
        let containers = document.containers.iter().chain(&document.ephemeral);
        let named = containers.filter_map(|one| one.rights.capabilities.clone());
        Self {
            host_files_cover: document.grants.host_files_cover,
            host_files_change: document.grants.host_files_change,
            evidence: document.grants.evidence,
            vsock: document.grants.vsock,
            capabilities: named.flatten().collect(),
        }
    }
}

impl Grants {
    /// Nothing is granted.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What holds while nobody wrote a policy: pods have configuration of their cluster,
    /// which may change, and may prove themselves.
    #[must_use]
    pub fn without_policy() -> Self {
        Self {
            host_files_cover: true,
            host_files_change: true,
            evidence: true,
            ..Self::none()
        }
    }
}
