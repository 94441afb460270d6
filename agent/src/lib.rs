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
//! 2. [`request`]: messages become types that cannot be invalid;
//! 3. [`judge`] and `policy_engine`: a request becomes a permit, or is denied;
//! 4. [`container`], [`sandbox`], [`network`], [`copy_file`]: what acts, on permits only.
//!
//! What the owner gave is settled before the first call ([`initdata`]), what is done is
//! measured before it is done ([`measured`]), and workloads prove it to others ([`rest`]).
//!
//! Around it: [`boot`] makes a guest out of a bare kernel, [`scratch`] a disk that the
//! host cannot read, [`run`] holds the parts
//! together, [`reaper`] waits for every process there is, and [`container::job`]
//! says why the container library works in processes of its own.

pub mod boot;
pub mod config;
pub mod container;
pub mod copy_file;
mod image_settings;
pub mod images;
pub mod initdata;
pub mod judge;
pub mod log;
pub mod measured;
pub mod network;
pub mod paths;
pub mod pause;
pub mod program;
pub mod reaper;
pub mod request;
pub mod rest;
pub mod rpc;
pub mod run;
pub mod sandbox;
pub mod scratch;
mod watched;
