//! A pod's network: from the links in its namespace to interfaces in the guest.
//!
//! CNI has set up links with addresses in the pod's network namespace. Each gets a
//! tap beside it, and traffic control redirects every packet from one to the other
//! ([`redirect`]). The guest's interface has the link's MAC address, MTU, addresses,
//! routes and permanent neighbours ([`mod@scan`]), so to the rest of the node the guest
//! *is* the pod. Taps vanish with the last process that holds them open; the
//! redirection on the link is removed by its owner, [`PodNetwork`], or by `delete`.

mod netns;
mod redirect;
mod scan;
mod tap;

use std::{net::IpAddr, path::PathBuf};

use shim_hypervisor::Nic;
use thiserror::Error;

pub(crate) use self::scan::GuestNetwork;
use crate::record::RedirectedLink;

/// Why a pod's network could not be set up or removed.
#[derive(Debug, Error)]
pub(crate) enum NetworkError {
    /// The namespace cannot be entered.
    #[error("cannot enter the pod's network namespace {path}")]
    Enter {
        /// The namespace.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The work in the namespace never ended.
    #[error("network set-up in {path} did not finish within {seconds} s")]
    Deadline {
        /// The namespace.
        path: PathBuf,
        /// The deadline.
        seconds: u64,
    },
    /// The kernel refused a request.
    #[error("cannot {action} for link {link}")]
    Netlink {
        /// What was asked.
        action: &'static str,
        /// The link that it was asked for; empty for all.
        link: String,
        /// The cause.
        #[source]
        source: rtnetlink::Error,
    },
    /// A tap cannot be made.
    #[error("cannot make tap {tap} in the pod's network namespace: is the module tun loaded?")]
    Tap {
        /// The tap.
        tap: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A link that no guest interface can stand for.
    #[error("link {link} of the pod cannot be given to a VM: {why}")]
    Unsupported {
        /// The link.
        link: String,
        /// What about the link cannot be given to a VM.
        why: &'static str,
    },
}

/// One link of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodLink {
    index: u32,
    name: String,
    mac: [u8; 6],
    mtu: u16,
    no_arp: bool,
    addresses: Vec<(IpAddr, u8)>,
}

/// The redirection of a pod's traffic; owned by the sandbox.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    netns: PathBuf,
    links: Vec<RedirectedLink>,
}

impl PodNetwork {
    /// Redirects traffic of these links, and opens the taps for the VM.
    ///
    /// # Errors
    ///
    /// [`NetworkError`]; what was already redirected is undone.
    pub(crate) async fn attach(
        netns: PathBuf,
        network: &GuestNetwork,
    ) -> Result<(Self, Vec<Nic>), NetworkError> {
        let links = network.links().to_vec();
        let owner = Self {
            netns: netns.clone(),
            links: planned(network),
        };
        let attached = netns::run(netns, move || redirect::attach(links)).await;
        match attached {
            Ok(nics) => Ok((owner, nics)),
            Err(error) => {
                owner.detach().await;
                Err(error)
            }
        }
    }

    /// Removes the redirection, if the namespace still exists.
    pub(crate) async fn detach(self) {
        detach(self.netns, self.links).await;
    }
}

/// Reads links, addresses, routes and neighbours of a namespace.
///
/// # Errors
///
/// [`NetworkError`] if it cannot be read or holds a link that no VM can have.
pub(crate) async fn scan(netns: PathBuf) -> Result<GuestNetwork, NetworkError> {
    netns::run(netns, scan::scan).await
}

/// What [`PodNetwork::attach`] is going to make, for the record.
pub(crate) fn planned(network: &GuestNetwork) -> Vec<RedirectedLink> {
    let links = network.links().iter().enumerate();
    links
        .map(|(index, link)| RedirectedLink {
            link: link.index,
            tap: tap_name(index),
        })
        .collect()
}

/// Removes what a record says was redirected; a namespace that is gone needs nothing.
pub(crate) async fn detach(netns: PathBuf, links: Vec<RedirectedLink>) {
    if links.is_empty() || !netns.exists() {
        return;
    }
    if let Err(error) = netns::run(netns, move || redirect::detach(links)).await {
        tracing::warn!(%error, "traffic redirection not removed");
    }
}

fn tap_name(index: usize) -> String {
    format!("tap{index}_kata")
}
