//! The OCI spec of a container, and which part it gives the container in a pod.
//!
//! containerd writes the spec into the container's bundle; it is trusted by the shim, and
//! the guest judges again what the shim makes of it.

mod pod;
mod spec;

pub use pod::{Membership, MembershipError, Role, image_name};
pub use spec::{
    Capabilities, ConsoleSize, Cpu, Device, HugepageLimit, Linux, Memory, Mount, Namespace, Pids,
    Process, Resources, Rlimit, Root, Seccomp, Spec, SpecError, Syscall, SyscallArg, User,
};
