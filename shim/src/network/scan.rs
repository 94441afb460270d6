//! Reads a pod's network and says it in the agent's words.

use std::{collections::BTreeMap, net::IpAddr};

use agent_protocol::rpc::{
    agent::{ARPNeighbors, Routes},
    types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route},
};
use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
            RouteProtocol, RouteType,
        },
    },
};
use shim_agent_client::{AgentClient, AgentError};

use super::{NetworkError, PodLink, redirect::connect};

/// `IFF_NOARP` (linux/if.h), the one flag that the agent applies.
const IFF_NOARP: u32 = 0x80;
/// `NUD_PERMANENT` (linux/neighbour.h).
const NUD_PERMANENT: i32 = 0x80;

/// A pod's network as the guest is to have it.
#[derive(Debug, Clone, Default)]
pub(crate) struct GuestNetwork {
    links: Vec<PodLink>,
    routes: Vec<Route>,
    neighbours: Vec<ARPNeighbor>,
}

impl GuestNetwork {
    /// The pod's links, in the order of their taps.
    pub(crate) fn links(&self) -> &[PodLink] {
        &self.links
    }

    /// Gives the guest its interfaces, neighbours and routes, in this order.
    ///
    /// # Errors
    ///
    /// [`AgentError`] of the first request that the guest refuses.
    pub(crate) async fn configure(&self, agent: &AgentClient) -> Result<(), AgentError> {
        for interface in self.interfaces() {
            agent.update_interface(interface).await?;
        }
        if let Some(neighbours) = self.neighbours() {
            agent.add_neighbours(neighbours).await?;
        }
        agent.update_routes(self.routes()).await
    }

    /// What to ask of the agent for each interface.
    fn interfaces(&self) -> Vec<Interface> {
        self.links.iter().map(interface).collect()
    }

    /// All routes but those that the kernel makes by itself.
    fn routes(&self) -> Routes {
        Routes {
            Routes: self.routes.clone(),
            ..Routes::default()
        }
    }

    /// Permanent neighbours; `None` if there are none.
    fn neighbours(&self) -> Option<ARPNeighbors> {
        (!self.neighbours.is_empty()).then(|| ARPNeighbors {
            ARPNeighbors: self.neighbours.clone(),
            ..ARPNeighbors::default()
        })
    }
}

fn interface(link: &PodLink) -> Interface {
    Interface {
        device: link.name.clone(),
        name: link.name.clone(),
        IPAddresses: link
            .addresses
            .iter()
            .map(|(address, prefix)| ip_address(*address, &prefix.to_string()))
            .collect(),
        mtu: link.mtu.into(),
        hwAddr: mac_text(&link.mac),
        raw_flags: if link.no_arp { IFF_NOARP } else { 0 },
        ..Interface::default()
    }
}

fn ip_address(address: IpAddr, mask: &str) -> IPAddress {
    IPAddress {
        family: family(address).into(),
        address: address.to_string(),
        mask: mask.to_owned(),
        ..IPAddress::default()
    }
}

fn family(address: IpAddr) -> IPFamily {
    if address.is_ipv4() {
        IPFamily::v4
    } else {
        IPFamily::v6
    }
}

fn mac_text(mac: &[u8]) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// Reads the current namespace.
pub(super) async fn scan() -> Result<GuestNetwork, NetworkError> {
    let handle = connect()?;
    let failed = |action| {
        move |source| NetworkError::Netlink {
            action,
            link: "(all)".to_owned(),
            source,
        }
    };
    let links = handle.link().get().execute();
    let links: Vec<_> = links.try_collect().await.map_err(failed("list links"))?;
    let addresses = handle.address().get().execute();
    let addresses: Vec<_> = addresses
        .try_collect()
        .await
        .map_err(failed("list addresses"))?;
    let routes = all_routes(&handle).await.map_err(failed("list routes"))?;
    let neighbours = handle.neighbours().get().execute();
    let neighbours: Vec<_> = neighbours
        .try_collect()
        .await
        .map_err(failed("list neighbours"))?;
    describe(&links, &addresses, &routes, &neighbours)
}

async fn all_routes(handle: &Handle) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    let mut routes: Vec<_> = handle.route().get(v4).execute().try_collect().await?;
    let more: Vec<_> = handle.route().get(v6).execute().try_collect().await?;
    routes.extend(more);
    Ok(routes)
}

fn describe(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
    neighbours: &[NeighbourMessage],
) -> Result<GuestNetwork, NetworkError> {
    let mut by_link: BTreeMap<u32, Vec<(IpAddr, u8)>> = BTreeMap::new();
    for message in addresses {
        if let Some(address) = usable_address(message) {
            let entry = by_link.entry(message.header.index).or_default();
            entry.push((address, message.header.prefix_len));
        }
    }
    let mut found = Vec::new();
    for link in links {
        let Some(addresses) = by_link.remove(&link.header.index) else {
            continue;
        };
        if !link.header.flags.contains(LinkFlags::Loopback) {
            found.push(pod_link(link, addresses)?);
        }
    }
    let names: BTreeMap<u32, &str> = found
        .iter()
        .map(|link| (link.index, link.name.as_str()))
        .collect();
    let routes = routes
        .iter()
        .filter_map(|message| route(message, &names))
        .collect();
    let neighbours = neighbours
        .iter()
        .filter_map(|message| neighbour(message, &names))
        .collect();
    Ok(GuestNetwork {
        routes,
        neighbours,
        links: found,
    })
}

/// The address itself, unless the guest's kernel makes it by itself (link-local IPv6).
fn usable_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the peer; `Local` is always ours.
            AddressAttribute::Local(local) => {
                address = Some(*local);
                break;
            }
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address.filter(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    })
}

fn pod_link(link: &LinkMessage, addresses: Vec<(IpAddr, u8)>) -> Result<PodLink, NetworkError> {
    let mut name = String::new();
    let mut mac = None;
    let mut mtu = 1500;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(value) => mtu = *value,
            _ => {}
        }
    }
    let unsupported = |why| NetworkError::Unsupported {
        link: name.clone(),
        why,
    };
    let mac = mac.ok_or_else(|| unsupported("it has no Ethernet address"))?;
    let mtu = u16::try_from(mtu).map_err(|_| unsupported("its MTU is above 65535"))?;
    Ok(PodLink {
        index: link.header.index,
        mac,
        mtu,
        no_arp: link.header.flags.contains(LinkFlags::Noarp),
        addresses,
        name,
    })
}

/// A route of the main table that somebody set; the guest's kernel makes the rest.
fn route(message: &RouteMessage, names: &BTreeMap<u32, &str>) -> Option<Route> {
    let header = &message.header;
    let family = match header.address_family {
        AddressFamily::Inet => IPFamily::v4,
        AddressFamily::Inet6 => IPFamily::v6,
        _ => return None,
    };
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
        || header.protocol == RouteProtocol::Kernel
    {
        return None;
    }
    let mut route = Route {
        family: family.into(),
        scope: u8::from(header.scope).into(),
        // The other flags are states of this moment.
        flags: (header.flags & RouteFlags::Onlink).bits(),
        ..Route::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.device = (*names.get(index)?).to_owned(),
            RouteAttribute::Destination(to) => {
                route.dest = format!("{}/{}", text(to)?, header.destination_prefix_length);
            }
            RouteAttribute::Gateway(gateway) => route.gateway = text(gateway)?,
            RouteAttribute::PrefSource(source) => route.source = text(source)?,
            RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
            _ => {}
        }
    }
    (!route.device.is_empty()).then_some(route)
}

fn mtu(metrics: &[RouteMetric]) -> u32 {
    let found = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    found.unwrap_or(0)
}

fn text(address: &RouteAddress) -> Option<String> {
    match address {
        RouteAddress::Inet(v4) => Some(v4.to_string()),
        RouteAddress::Inet6(v6) => Some(v6.to_string()),
        _ => None,
    }
}

fn neighbour(message: &NeighbourMessage, names: &BTreeMap<u32, &str>) -> Option<ARPNeighbor> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let device = (*names.get(&message.header.ifindex)?).to_owned();
    let mut address = None;
    let mut lladdr = String::new();
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(mac) => lladdr = mac_text(mac),
            _ => {}
        }
    }
    Some(ARPNeighbor {
        toIPAddress: Some(ip_address(address?, "")).into(),
        device,
        lladdr,
        state: NUD_PERMANENT,
        ..ARPNeighbor::default()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn link(index: u32, name: &str, loopback: bool) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if loopback {
            message.header.flags = LinkFlags::Loopback;
        }
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
            LinkAttribute::Mtu(1400),
        ];
        message
    }

    fn address(index: u32, text: &str, prefix: u8) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        message.attributes = vec![AddressAttribute::Address(text.parse().unwrap())];
        message
    }

    fn default_route(oif: u32, protocol: RouteProtocol) -> RouteMessage {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(Ipv4Addr::new(10, 0, 0, 1))
            .output_interface(oif)
            .build();
        message.header.protocol = protocol;
        message.header.kind = RouteType::Unicast;
        message
    }

    #[test]
    fn links_with_addresses_become_interfaces() {
        let links = [
            link(1, "lo", true),
            link(2, "eth0", false),
            link(3, "bare", false),
        ];
        let addresses = [
            address(1, "127.0.0.1", 8),
            address(2, "10.0.0.5", 24),
            address(2, "fd00::5", 64),
            address(2, "fe80::1", 64),
        ];
        let network = describe(&links, &addresses, &[], &[]).unwrap();
        let interfaces = network.interfaces();
        assert_eq!(interfaces.len(), 1);
        assert_eq!(interfaces[0].name, "eth0");
        assert_eq!(interfaces[0].hwAddr, "02:00:00:00:00:07");
        assert_eq!(interfaces[0].mtu, 1400);
        let texts: Vec<_> = interfaces[0]
            .IPAddresses
            .iter()
            .map(|ip| format!("{}/{}", ip.address, ip.mask))
            .collect();
        assert_eq!(texts, ["10.0.0.5/24", "fd00::5/64"]);
    }

    #[test]
    fn routes_of_the_kernel_and_of_other_links_stay_out() {
        let links = [link(2, "eth0", false)];
        let addresses = [address(2, "10.0.0.5", 24)];
        let routes = [
            default_route(2, RouteProtocol::Boot),
            default_route(2, RouteProtocol::Kernel),
            default_route(9, RouteProtocol::Boot),
        ];
        let network = describe(&links, &addresses, &routes, &[]).unwrap();
        let routes = network.routes().Routes;
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].dest, "");
        assert_eq!(routes[0].gateway, "10.0.0.1");
        assert_eq!(routes[0].device, "eth0");
    }

    #[test]
    fn only_permanent_neighbours_are_sent() {
        let links = [link(2, "eth0", false)];
        let addresses = [address(2, "10.0.0.5", 24)];
        let mut permanent = NeighbourMessage::default();
        permanent.header.ifindex = 2;
        permanent.header.state = NeighbourState::Permanent;
        permanent.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 1))),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        let mut stale = permanent.clone();
        stale.header.state = NeighbourState::Stale;
        let network = describe(&links, &addresses, &[], &[permanent, stale]).unwrap();
        let neighbours = network.neighbours().unwrap().ARPNeighbors;
        assert_eq!(neighbours.len(), 1);
        assert_eq!(neighbours[0].lladdr, "02:00:00:00:00:01");
        assert_eq!(neighbours[0].toIPAddress.address, "10.0.0.1");
        assert!(
            describe(&links, &addresses, &[], &[])
                .unwrap()
                .neighbours()
                .is_none()
        );
    }

    #[test]
    fn a_link_without_ethernet_address_is_refused_by_name() {
        let mut tunnel = link(2, "tun0", false);
        tunnel.attributes.remove(1);
        let error = describe(&[tunnel], &[address(2, "10.0.0.5", 24)], &[], &[]).unwrap_err();
        assert!(error.to_string().contains("tun0"));
    }
}
