//! The guest's first process: it judges what the host asks and runs the pod.
//!
//! It trusts what was measured, itself and the guest image, and nothing else: not
//! the host, whose calls arrive over vsock; not the registry, whose images it
//! checks before a workload sees them; and workloads only as far as their
//! containers hold them.
//!
//! A call's way, in the order to read it:
//!
//! 1. [`rpc`]: the services; every call is parsed, judged, done, answered;
//! 2. [`agent_requests`]: messages become types that cannot be invalid;
//! 3. [`judge`] and `policy_engine`: a request becomes a permit, or is denied;
//! 4. [`agent_containers`], [`sandbox`], [`network`]: what acts, on permits only.
//!
//! What the owner gave is settled before the first call ([`initdata`]), what is done is
//! measured before it is done ([`agent_measured`]), and workloads prove it to others
//! ([`rest`]).
//!
//! Around it: [`boot`] makes a guest out of a bare kernel, [`agent_scratch_disk`] a disk
//! that the host cannot read, and [`run`] holds the parts together.

pub mod boot;
pub mod config;
pub mod initdata;
pub mod judge;
mod keys;
pub mod log;
pub mod network;
pub mod program;
pub mod rest;
pub mod rpc;
pub mod run;
mod run_error;
pub mod sandbox;
mod told;
mod version;
