//! What a container took of the guest.

use agent_protocol::path::GuestPath;

use crate::root::Root;

/// What a container took: its root goes with it, its volumes stay for the pod.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) root: Option<Root>,
    pub(crate) storages: Vec<GuestPath>,
}
