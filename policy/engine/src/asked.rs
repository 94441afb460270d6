//! What the engine sees of a request: names, numbers and texts, parsed by whoever asks.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{environment::PodFacts, expected::OfImage, workload::Workload};

/// A parsed request that the policy can judge.
pub trait Request {
    /// The rule that judges it: the name of the protocol's request message.
    const RULE: &'static str;

    /// What of it is judged, where there is more than its kind.
    fn asked(&self) -> Asked<'_> {
        Asked::Nothing
    }
}

/// What of a request is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Nothing but its kind.
    Nothing,
    /// The pod is set up.
    Sandbox {
        /// Its host name.
        hostname: &'a str,
        /// File systems in memory for the whole pod.
        memory: Vec<AskedVolume<'a>>,
    },
    /// The pod is taken down.
    Destroy,
    /// A container is made.
    Container(Box<AskedContainer<'a>>),
    /// A container's process is let run.
    Start(&'a str),
    /// A container is removed.
    Remove(&'a str),
    /// Something about a container.
    Of(&'a str),
    /// A further process in a container.
    Exec(AskedExec<'a>),
    /// A signal for a process of a container.
    Signal {
        /// The container.
        container: &'a str,
        /// Its number.
        signal: i32,
    },
    /// A file of the host, by its path below the shared root.
    File {
        /// The path.
        path: &'a str,
        /// It is a symbolic link.
        is_link: bool,
    },
    /// An interface of the pod.
    Interface {
        /// Its name.
        name: &'a str,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// Routes or neighbours.
    Network {
        /// The interfaces that they are at.
        devices: Vec<&'a str>,
        /// Addresses in them.
        addresses: Vec<IpAddr>,
    },
}

/// A container that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedContainer<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name in the pod: which container of the policy it claims to be.
    pub name: &'a str,
    /// `metadata.name` of the pod, as the node says it.
    pub pod_name: &'a str,
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
    /// The image; none for the pause container, which the guest makes itself.
    pub image: Option<&'a str>,
    /// Settings of the kernel.
    pub sysctls: Vec<(&'a str, &'a str)>,
    /// Volumes that the guest makes.
    pub volumes: Vec<AskedVolume<'a>>,
    /// Whose processes it sees.
    pub processes: AskedProcesses<'a>,
}

/// Whose processes a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedProcesses<'a> {
    /// Its own.
    Own,
    /// The pod's.
    Pod,
    /// Another container's, by its id.
    Of(&'a str),
}

/// A volume that the guest is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedVolume<'a> {
    /// Its place below the root for volumes of its kind.
    pub path: &'a str,
    /// In memory, not on the scratch disk.
    pub in_memory: bool,
    /// The most bytes that it holds, if there is a limit.
    pub size: Option<u64>,
    /// Whose group its files get, if one's.
    pub group: Option<u32>,
}

/// Who is to run a process, as the request says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedUser {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Further groups.
    pub groups: BTreeSet<u32>,
    /// A name that the image resolves, if any.
    pub name: String,
}

/// A further process in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedExec<'a> {
    /// The container.
    pub container: &'a str,
    /// The program and its arguments.
    pub args: &'a [String],
    /// Its environment, `NAME=value`.
    pub environment: &'a [String],
    /// Where it starts.
    pub directory: &'a str,
    /// It has a terminal.
    pub terminal: bool,
    /// Who runs it.
    pub user: AskedUser,
    /// It gains no rights.
    pub no_new_privileges: bool,
    /// It has limits of the kernel's.
    pub limited: bool,
}

/// A container as it is about to run, when the image has said who its user is.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// Its normal form.
    pub workload: &'a Workload,
    /// Its environment, `NAME=value`.
    pub environment: &'a [String],
    /// What the guest knows of the pod.
    pub facts: &'a PodFacts,
    /// What the image's files say of its user.
    pub image: &'a OfImage,
    /// Who runs it, as the request said it.
    pub user: &'a AskedUser,
}
