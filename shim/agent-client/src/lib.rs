//! The shim's side of the agent's RPC: one function for each request.
//!
//! The answers are the guest's. It may lie, which can hurt nobody but its own tenant, and
//! the transport bounds what it may send.

mod client;
mod containers;
mod error;
mod processes;

pub use client::AgentClient;
pub use error::AgentError;
pub use processes::{GuestProcess, Output};
