//! What a container took of the guest and gives back at its end.

use agent_protocol::path::GuestPath;

use crate::root::Root;

/// What a container took and gives back at its end.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) root: Option<Root>,
    pub(crate) storages: Vec<GuestPath>,
}
