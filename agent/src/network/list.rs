//! The network as it is, in the protocol's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_protocol::rpc::{agent, types};
use agent_requests::{ListInterfaces, ListRoutes, UpdateRoutes};
use futures::TryStreamExt;
use policy_engine::Permit;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
    },
};

use super::{Network, NetworkError, refused};

impl Network {
    /// All interfaces.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn list_interfaces(
        &self,
        _: &Permit<ListInterfaces>,
    ) -> Result<agent::Interfaces, NetworkError> {
        let mut list = agent::Interfaces::default();
        for link in self.links().await? {
            let addresses = self.addresses(link.index).await?;
            list.Interfaces.push(types::Interface {
                device: link.name.clone(),
                name: link.name,
                IPAddresses: addresses.iter().filter_map(address).collect(),
                mtu: link.mtu.into(),
                hwAddr: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                ..Default::default()
            });
        }
        Ok(list)
    }

    /// All routes of the main table that the kernel did not make by itself.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn list_routes(&self, _: &Permit<ListRoutes>) -> Result<agent::Routes, NetworkError> {
        self.routes().await
    }

    /// The routes after a change.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn routes_after(
        &self,
        _: &Permit<UpdateRoutes>,
    ) -> Result<agent::Routes, NetworkError> {
        self.routes().await
    }

    async fn routes(&self) -> Result<agent::Routes, NetworkError> {
        let links = self.links().await?;
        let name = |index: u32| {
            let found = links.iter().find(|link| link.index == index);
            found.map(|link| link.name.clone()).unwrap_or_default()
        };
        let mut list = agent::Routes::default();
        let filters = [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ];
        for filter in filters {
            let routes = self.kernel.route().get(filter).execute();
            let routes: Vec<_> = routes
                .try_collect()
                .await
                .map_err(refused("list the routes", "the guest"))?;
            let wanted = |route: &&RouteMessage| {
                route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.protocol != RouteProtocol::Kernel
            };
            list.Routes.extend(
                routes
                    .iter()
                    .filter(wanted)
                    .map(|route| to_wire(route, &name)),
            );
        }
        Ok(list)
    }
}

fn address(message: &AddressMessage) -> Option<types::IPAddress> {
    let ip = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })?;
    Some(types::IPAddress {
        family: family(ip).into(),
        address: ip.to_string(),
        mask: message.header.prefix_len.to_string(),
        ..Default::default()
    })
}

fn family(ip: IpAddr) -> types::IPFamily {
    if ip.is_ipv4() {
        types::IPFamily::v4
    } else {
        types::IPFamily::v6
    }
}

fn to_wire(route: &RouteMessage, name: &impl Fn(u32) -> String) -> types::Route {
    let mut wire = types::Route {
        scope: u8::from(route.header.scope).into(),
        ..Default::default()
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                if let Some(ip) = ip(to) {
                    wire.dest = format!("{ip}/{}", route.header.destination_prefix_length);
                    wire.family = family(ip).into();
                }
            }
            RouteAttribute::Gateway(via) => {
                if let Some(ip) = ip(via) {
                    wire.gateway = ip.to_string();
                    wire.family = family(ip).into();
                }
            }
            RouteAttribute::PrefSource(from) => {
                wire.source = ip(from).map(|ip| ip.to_string()).unwrap_or_default();
            }
            RouteAttribute::Oif(index) => wire.device = name(*index),
            _ => {}
        }
    }
    wire
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
