//! The version that the guest tells.

/// Of the agent, as hosts, workloads and the measurement log see it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
