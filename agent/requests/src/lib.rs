//! What the host asks, parsed: each message of the protocol becomes a type that
//! holds only what the guest can use, bounded and checked.
//!
//! The host is hostile. Parsing is pure and never panics (a fuzz target tries), it
//! refuses what the guest does not have instead of dropping it silently when a
//! workload would notice, and it never keeps a path that the guest would follow
//! outside the roots of [`paths`].

mod capabilities;
mod container;
mod error;
mod files;
mod limits;
mod mounts;
mod network;
mod parse;
pub mod paths;
mod process;
mod sandbox;
mod seccomp;
mod spec;
mod storage;

pub use capabilities::to_be_granted;
pub use container::{
    ContainerRequest, CreateContainer, PauseContainer, ProcessNamespace, RemoveContainer,
    ResumeContainer, StartContainer, StatsContainer, UpdateContainer,
};
pub use error::{RequestError, Unsupported};
pub use files::{CopyFile, FileKind, FileOwner, GetDiagnosticData, GetVolumeStats};
pub use limits::{Cpu, Limits, Memory};
pub use network::{
    AddArpNeighbors, Address, Interface, ListInterfaces, ListRoutes, MacAddress, Neighbor, Prefix,
    Route, UpdateInterface, UpdateRoutes,
};
pub use parse::Parse;
pub use process::{
    CloseStdin, ExecProcess, ProcessRequest, ReadStream, SignalProcess, TtyWinResize, WaitProcess,
    WriteStdin,
};
pub use sandbox::{
    CreateSandbox, DestroySandbox, GetGuestDetails, GetOomEvent, OnlineCpuMem, SandboxStorage,
    SetPolicy,
};
pub use spec::{ContainerSpec, PodNames, ProcessSpec, Sysctl};
pub use storage::{Ephemeral, ImagePull, Local, TmpfsOptions, VolumeStorage};
