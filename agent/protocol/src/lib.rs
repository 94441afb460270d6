//! The RPC between host and guest, and the types its untrusted bytes become.
//!
//! This crate is all that the host's shim and the guest's agent share. It holds
//! no I/O and trusts neither side:
//!
//! - [`rpc`]: the messages and services, generated from `proto/`, wire-equal to
//!   the Kata Containers 4.1 agent protocol (ttrpc over vsock port
//!   [`limits::AGENT_PORT`]);
//! - [`id`]: container, exec and sandbox ids that cannot be invalid;
//! - [`path`]: guest paths that cannot leave the root they name;
//! - [`initdata`]: the configuration that the owner writes and the launch binds;
//! - [`documents`]: JSON and TOML that strangers wrote, within limits;
//! - [`limits`]: every bound on what crosses the boundary.
//!
//! Start at [`rpc::agent_ttrpc::AgentService`] for what the host can ask, and at
//! [`id`] for how its strings are tamed.

pub use agent_documents as documents;

pub mod id;
pub mod initdata;
pub mod limits;
pub mod path;

/// Generated messages, clients and server traits, one module per schema file.
#[allow(
    missing_docs,
    unnameable_types,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::too_many_lines,
    rustdoc::all,
    reason = "generated code; the schema in `proto/` is its documentation"
)]
pub mod rpc {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}
