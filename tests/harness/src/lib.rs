//! A node in namespaces of its own: containerd, registry and network for tests and demo.
//!
//! The bed is what a platform engineer's node is to this product: a real
//! containerd with its CNI plug-ins and a registry that speaks TLS. Everything
//! runs in fresh PID, mount, network, cgroup, UTS and IPC namespaces over
//! `tmpfs`, so that ending one process — the bed's first — takes all of it away:
//! processes, interfaces, mounts and files. The machine's own network and
//! directories are never touched.
//!
//! Start with [`Bed::up`]; then [`Bed::command`] runs a program inside and
//! [`Cri`] speaks to containerd as kubelet does.

mod access_log;
mod authority;
mod bed;
mod bench;
mod bench_ahead;
mod bench_generation;
mod bytes;
mod cgroups;
mod containerd;
mod cri;
mod debian;
mod demo;
mod demo_keys;
mod demo_policy;
mod first;
mod guest;
mod images;
mod keeper;
mod leftovers;
mod measurement;
mod network;
mod node;
mod own_memory;
mod pod;
mod registry;
mod run;
mod simulated;
mod soak;
mod tools;

pub use access_log::{AccessLog, Request};
pub use authority::Authority;
pub use bed::{Bed, BedOptions, Handler, wait_until};
pub use bench::{BenchOptions, bench};
pub use cgroups::join;
pub use containerd::{Containerd, Release};
pub use cri::Cri;
pub use debian::{Skopeo, cosign, umoci};
pub use demo::{ContainerTiming, DemoOptions, Timing, TimingWatch, demo};
pub use demo_keys::{Decision, Promise, Refusal, WORDS, WORDS_IMAGE, words};
pub use first::first_process;
pub use images::{Image, TestImages, busybox};
pub use keeper::{KeeperOptions, keep};
pub use leftovers::Leftovers;
pub use measurement::{Measurement, median, rounded, write as write_measurements};
pub use node::{Node, Process, command_inside};
pub use own_memory::{OWN_MIB, own_mib};
pub use pod::{Container, ContainerRequest, Exit, Pod, PodRequest, stream};
pub use registry::{REGISTRY, Registry};
pub use run::{Ran, run, run_ok};
pub use simulated::{SimulatedTee, firmware_is_installed};
pub use soak::{SoakOptions, soak};
pub use tools::{Prefix, built, cache_dir};
