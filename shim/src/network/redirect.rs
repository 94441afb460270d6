//! Moves every packet between a link and its tap, both ways.
//!
//! An ingress queueing discipline on each side and one filter that matches all
//! protocols and redirects to the other side's egress ("tc-mirred(8)"). Nothing
//! of the host's stack sees the packets.

use rtnetlink::{Handle, LinkUnspec};
use shim_hypervisor::Nic;

use super::{NetworkError, PodLink, tap, tap_name};
use crate::record::RedirectedLink;

/// All protocols (linux/if_ether.h), in network byte order as tc wants it.
const ETH_P_ALL: u16 = 0x0003_u16.to_be();
/// The parent of filters on an ingress discipline.
const INGRESS: u32 = 0xffff_0000;

/// Makes a tap for each link and redirects traffic, in the current namespace.
pub(super) async fn attach(links: Vec<PodLink>) -> Result<Vec<Nic>, NetworkError> {
    let handle = connect()?;
    let mut nics = Vec::with_capacity(links.len());
    for (index, link) in links.iter().enumerate() {
        nics.push(attach_link(&handle, link, tap_name(index)).await?);
    }
    Ok(nics)
}

async fn attach_link(handle: &Handle, link: &PodLink, tap: String) -> Result<Nic, NetworkError> {
    let fd = tap::open(&tap).map_err(|source| NetworkError::Tap {
        tap: tap.clone(),
        source,
    })?;
    let tap_index = index_of(handle, &tap).await?;
    let failed = |action| {
        let link = link.name.clone();
        move |source| NetworkError::Netlink {
            action,
            link,
            source,
        }
    };
    let up = LinkUnspec::new_with_index(tap_index)
        .mtu(link.mtu.into())
        .up()
        .build();
    let set = handle.link().set(up).execute().await;
    set.map_err(failed("bring the tap up"))?;
    for index in [link.index, tap_index] {
        let added = handle.qdisc().add(signed(index)).ingress().execute().await;
        added.map_err(failed("add an ingress queueing discipline"))?;
    }
    for (from, to) in [(link.index, tap_index), (tap_index, link.index)] {
        let filter = handle
            .traffic_filter(signed(from))
            .add()
            .parent(INGRESS)
            .protocol(ETH_P_ALL)
            .redirect(to);
        let added = match filter {
            Ok(filter) => filter.execute().await,
            Err(error) => Err(error),
        };
        added.map_err(failed("redirect traffic"))?;
    }
    Ok(Nic {
        mac: link.mac,
        mtu: link.mtu,
        tap: vec![fd],
    })
}

/// Takes the redirection off the links again, in the current namespace.
pub(super) async fn detach(links: Vec<RedirectedLink>) -> Result<(), NetworkError> {
    let handle = connect()?;
    for link in links {
        let removed = handle.qdisc().del(signed(link.link)).ingress_parent();
        if let Err(error) = removed.execute().await {
            // Not made yet, or gone with the link.
            tracing::debug!(link.index = link.link, %error, "no redirection to remove");
        }
        // A tap outlives its redirection only while a VM still holds it.
        if let Ok(index) = index_of(&handle, &link.tap).await {
            let deleted = handle.link().del(index).execute().await;
            deleted.map_err(|source| NetworkError::Netlink {
                action: "delete the tap",
                link: link.tap,
                source,
            })?;
        }
    }
    Ok(())
}

trait IngressParent {
    fn ingress_parent(self) -> Self;
}

impl IngressParent for rtnetlink::QDiscDelRequest {
    fn ingress_parent(mut self) -> Self {
        let header = &mut self.message_mut().header;
        header.parent = rtnetlink::packet_route::tc::TcHandle::INGRESS;
        header.handle = INGRESS.into();
        self
    }
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, NetworkError> {
    use futures::TryStreamExt;

    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let failed = |source| NetworkError::Netlink {
        action: "find the tap",
        link: name.to_owned(),
        source,
    };
    match found.try_next().await.map_err(failed)? {
        Some(link) => Ok(link.header.index),
        None => Err(failed(rtnetlink::Error::RequestFailed)),
    }
}

/// A netlink connection of the current namespace, served by the current runtime.
pub(super) fn connect() -> Result<Handle, NetworkError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|source| NetworkError::Enter {
            path: "/proc/self/ns/net".into(),
            source,
        })?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The kernel's interface indices are positive `int`s, whatever netlink calls them.
fn signed(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
