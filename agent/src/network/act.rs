//! Applies parsed requests to the kernel through rtnetlink.

use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder, new_connection,
    packet_route::{
        link::{LinkAttribute, LinkMessage},
        neighbour::{NeighbourFlags, NeighbourState},
        route::{RouteMessage, RouteProtocol, RouteScope},
    },
};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::request::{
    HardwareAddress, InterfaceUpdate, LinkName, Neighbour, Neighbours, Prefix, Route, RoutesUpdate,
};

/// How long a link may take to appear after the VM started.
const LINK_DEADLINE: Duration = Duration::from_secs(3);
/// How often a link that is not there yet is looked for.
const LINK_INTERVAL: Duration = Duration::from_millis(20);

/// A step that the kernel refused.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] std::io::Error),
    /// The link that the request names is missing.
    #[error("the guest has no link {0}")]
    NoLink(String),
    /// The kernel refused a change.
    #[error("cannot {step} {object}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// On what.
        object: String,
        /// The kernel's answer.
        #[source]
        source: Box<rtnetlink::Error>,
    },
}

fn refused(step: &'static str, object: impl ToString) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let object = object.to_string();
    move |source| NetworkError::Refused { step, object, source: Box::new(source) }
}

/// The guest's network namespace.
#[derive(Debug, Clone)]
pub struct Network {
    pub(super) handle: Handle,
}

impl Network {
    /// Opens a netlink socket; its reader runs until the last clone is dropped.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Open`] if the kernel gives no socket.
    pub fn connect() -> Result<Self, NetworkError> {
        let (connection, handle, _) = new_connection().map_err(NetworkError::Open)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Brings up `lo`.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] if there is no such link or the kernel refuses.
    pub async fn loopback_up(&self) -> Result<(), NetworkError> {
        let link = self.find(|link| name(link) == Some("lo")).await?;
        let index = link.ok_or_else(|| NetworkError::NoLink("lo".into()))?.header.index;
        self.set(LinkUnspec::new_with_index(index).up(), "bring up", "lo").await
    }

    /// Makes one link look as asked, and brings it up.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] names the step that failed; the link is then down.
    pub async fn update_interface(&self, update: &InterfaceUpdate) -> Result<(), NetworkError> {
        let link = self.wait_for(&update.hardware_address).await?;
        let (index, wanted) = (link.header.index, update.name.as_str());
        let by_index = || LinkUnspec::new_with_index(index);
        self.set(by_index().down(), "take down", wanted).await?;
        self.replace_addresses(index, &update.addresses).await?;
        if name(&link) != Some(wanted) {
            self.free_name(&update.name).await?;
            self.set(by_index().name(wanted), "rename a link to", wanted).await?;
        }
        if let Some(mtu) = update.mtu {
            self.set(by_index().mtu(mtu), "set the MTU of", wanted).await?;
        }
        self.set(by_index().arp(!update.no_arp).up(), "bring up", wanted).await
    }

    /// Adds or replaces routes of the main table; others stay.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] names the route that failed; those before it stay.
    pub async fn update_routes(&self, update: &RoutesUpdate) -> Result<(), NetworkError> {
        for route in update.routes() {
            let link = self.named(&route.link).await?;
            let message = route_message(route, link.header.index);
            let object = route.destination.map_or_else(
                || "the default route".to_owned(),
                |prefix| format!("the route to {}/{}", prefix.address, prefix.length),
            );
            self.handle
                .route()
                .add(message)
                .replace()
                .execute()
                .await
                .map_err(refused("add", object))?;
        }
        Ok(())
    }

    /// Adds or replaces entries of the neighbour table; others stay.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] names the entry that failed; those before it stay.
    pub async fn add_neighbours(&self, neighbours: &Neighbours) -> Result<(), NetworkError> {
        for entry in neighbours.entries() {
            self.add_neighbour(entry).await?;
        }
        Ok(())
    }

    async fn add_neighbour(&self, entry: &Neighbour) -> Result<(), NetworkError> {
        let link = self.named(&entry.link).await?;
        self.handle
            .neighbours()
            .add(link.header.index, entry.address)
            .state(NeighbourState::from(entry.state))
            .flags(NeighbourFlags::from_bits_truncate(entry.flags))
            .link_layer_address(entry.hardware_address.as_bytes())
            .replace()
            .execute()
            .await
            .map_err(refused("add the neighbour", entry.address))
    }

    async fn replace_addresses(&self, index: u32, wanted: &[Prefix]) -> Result<(), NetworkError> {
        let mut present = self.handle.address().get().set_link_index_filter(index).execute();
        let step = "read the addresses of link";
        while let Some(address) = present.try_next().await.map_err(refused(step, index))? {
            let removal = self.handle.address().del(address).execute().await;
            removal.map_err(refused("remove an address of link", index))?;
        }
        for prefix in wanted {
            let addition = self.handle.address().add(index, prefix.address, prefix.length);
            addition.replace().execute().await.map_err(refused("add address", prefix.address))?;
        }
        Ok(())
    }

    /// Moves a link that already has the wanted name out of the way.
    async fn free_name(&self, wanted: &LinkName) -> Result<(), NetworkError> {
        let Some(other) = self.find(|link| name(link) == Some(wanted.as_str())).await? else {
            return Ok(());
        };
        let index = other.header.index;
        let aside = format!("moved{index}");
        let change = LinkUnspec::new_with_index(index).down().name(aside);
        self.set(change, "move aside", wanted.as_str()).await
    }

    async fn wait_for(&self, address: &HardwareAddress) -> Result<LinkMessage, NetworkError> {
        let deadline = Instant::now() + LINK_DEADLINE;
        loop {
            if let Some(link) = self.find(|link| has_address(link, address)).await? {
                return Ok(link);
            }
            if Instant::now() >= deadline {
                return Err(NetworkError::NoLink(format!("with address {:02x?}", address.as_bytes())));
            }
            sleep(LINK_INTERVAL).await;
        }
    }

    async fn named(&self, wanted: &LinkName) -> Result<LinkMessage, NetworkError> {
        let link = self.find(|link| name(link) == Some(wanted.as_str())).await?;
        link.ok_or_else(|| NetworkError::NoLink(wanted.as_str().to_owned()))
    }

    async fn find(
        &self,
        matches: impl Fn(&LinkMessage) -> bool,
    ) -> Result<Option<LinkMessage>, NetworkError> {
        let mut links = self.handle.link().get().execute();
        let mut found = None;
        while let Some(link) = links.try_next().await.map_err(refused("list", "links"))? {
            if found.is_none() && matches(&link) {
                found = Some(link);
            }
        }
        Ok(found)
    }

    async fn set(
        &self,
        change: LinkMessageBuilder<LinkUnspec>,
        step: &'static str,
        object: &str,
    ) -> Result<(), NetworkError> {
        self.handle.link().set(change.build()).execute().await.map_err(refused(step, object))
    }
}

pub(super) fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn has_address(link: &LinkMessage, wanted: &HardwareAddress) -> bool {
    link.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::Address(bytes) if bytes.as_slice() == wanted.as_bytes())
    })
}

fn route_message(route: &Route, index: u32) -> RouteMessage {
    use std::net::IpAddr::{V4, V6};
    let scope = RouteScope::from(route.scope);
    if route.is_ipv6 {
        let mut builder = RouteMessageBuilder::<std::net::Ipv6Addr>::new();
        if let Some(Prefix { address: V6(address), length }) = route.destination {
            builder = builder.destination_prefix(address, length);
        }
        if let Some(V6(gateway)) = route.gateway {
            builder = builder.gateway(gateway);
        }
        if let Some(V6(source)) = route.source {
            builder = builder.pref_source(source);
        }
        return builder.output_interface(index).protocol(RouteProtocol::Boot).scope(scope).build();
    }
    let mut builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new();
    if let Some(Prefix { address: V4(address), length }) = route.destination {
        builder = builder.destination_prefix(address, length);
    }
    if let Some(V4(gateway)) = route.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(V4(source)) = route.source {
        builder = builder.pref_source(source);
    }
    builder.output_interface(index).protocol(RouteProtocol::Boot).scope(scope).build()
}
