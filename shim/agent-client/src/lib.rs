//! The shim's side of the agent's RPC: one function for each request.
//!
//! The answers are the guest's, which may be a stranger to the node's operator. Each is
//! bounded before it is decoded, and becomes a type that holds only what such an answer can
//! hold, or an error: [`answers`], [`Stats`], [`GuestText`]. [`Pace`] bounds how often an event
//! of the guest does something on the node.

pub mod answers;
mod client;
mod containers;
mod error;
mod pace;
mod processes;
mod stats;
#[cfg(test)]
mod tests;
mod text;

pub use answers::AnswerError;
pub use client::AgentClient;
pub use error::AgentError;
pub use pace::Pace;
pub use processes::{GuestProcess, Output};
pub use stats::{
    Cpu, DEVICES_MAX, Device, HugePages, INTERFACES_MAX, Interface, Level, MEMORY_KEYS,
    PAGE_SIZES_MAX, Stats,
};
pub use text::{GuestText, LINE_BYTES_MAX, MESSAGE_BYTES_MAX};
