//! Requests about the pod's network (Kata agent protocol, section 9).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_protocol::rpc::{agent, types};
use policy_engine::Asked;

use crate::{
    error::RequestError,
    parse::{Parse, at_most, rule},
};

const LIST_MAX: usize = 256;
/// `IFNAMSIZ` of Linux, less the terminating zero.
const NAME_BYTES_MAX: usize = 15;
const IFF_NOARP: u32 = 0x80;

/// An interface to set up.
#[derive(Debug)]
pub struct UpdateInterface(pub Interface);

/// Routes to set up.
#[derive(Debug)]
pub struct UpdateRoutes(pub Vec<Route>);

/// Neighbours to make known.
#[derive(Debug)]
pub struct AddArpNeighbors(pub Vec<Neighbor>);

/// A wish to see the interfaces.
#[derive(Debug)]
pub struct ListInterfaces;

/// A wish to see the routes.
#[derive(Debug)]
pub struct ListRoutes;

/// Address of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
}

/// A network.
pub type Prefix = Address;

/// An interface as the pod should have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the guest.
    pub name: String,
    /// How the card is found.
    pub mac: MacAddress,
    /// All its addresses.
    pub addresses: Vec<Address>,
    /// The largest packet; `None` leaves it.
    pub mtu: Option<u32>,
    /// Whether address resolution is off.
    pub no_arp: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; `None` is everywhere.
    pub destination: Option<Prefix>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// The interface's name.
    pub device: String,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Scope by its kernel number.
    pub scope: u8,
    /// Whether this is a route of IPv6.
    pub v6: bool,
    /// Whether the gateway is reachable without a route to it.
    pub on_link: bool,
    /// Largest packet on this route.
    pub mtu: Option<u32>,
}

/// A neighbour whose card's address is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub ip: IpAddr,
    /// The interface's name.
    pub device: String,
    /// Its card.
    pub mac: MacAddress,
    /// Kernel state bits.
    pub state: u16,
    /// Kernel flag bits.
    pub flags: u8,
}

impl MacAddress {
    /// Reads `aa:bb:cc:dd:ee:ff`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && !part.starts_with('+'))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Address {
    fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        (prefix <= most).then_some(Self { ip, prefix })
    }

    /// Reads `10.0.0.0/8`; without a length it is one address.
    fn parse_cidr(text: &str) -> Option<Self> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip.parse::<IpAddr>().ok()?, prefix.parse().ok()?),
            None => {
                let ip = text.parse::<IpAddr>().ok()?;
                (ip, if ip.is_ipv4() { 32 } else { 128 })
            }
        };
        Self::new(ip, prefix)
    }

    fn is_everything(&self) -> bool {
        let zero = match self.ip {
            IpAddr::V4(ip) => ip == Ipv4Addr::UNSPECIFIED,
            IpAddr::V6(ip) => ip == Ipv6Addr::UNSPECIFIED,
        };
        zero && self.prefix == 0
    }
}

fn name(text: &str) -> Result<String, RequestError> {
    at_most("interface name", text.len(), NAME_BYTES_MAX)?;
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
    if matches!(text, "" | "." | ".." | "lo") || !text.bytes().all(plain) {
        return Err(RequestError::Invalid("interface name"));
    }
    Ok(text.to_owned())
}

fn mac(text: &str) -> Result<MacAddress, RequestError> {
    MacAddress::parse(text)
        .filter(|mac| mac.0 != [0; 6])
        .ok_or(RequestError::Invalid("hardware address"))
}

fn address(entry: &types::IPAddress) -> Result<Address, RequestError> {
    let parsed = || {
        let ip = entry.address.parse().ok()?;
        Address::new(ip, entry.mask.parse().ok()?)
    };
    parsed().ok_or(RequestError::Invalid("IP address"))
}

fn optional_ip(field: &'static str, text: &str) -> Result<Option<IpAddr>, RequestError> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| RequestError::Invalid(field)),
    }
}

impl Parse for UpdateInterface {
    type Message = agent::UpdateInterfaceRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let entry = message
            .interface
            .into_option()
            .ok_or(RequestError::Missing("interface"))?;
        at_most("addresses", entry.IPAddresses.len(), LIST_MAX)?;
        let mtu = match entry.mtu {
            0 => None,
            mtu @ 68..=65_535 => u32::try_from(mtu).ok(),
            _ => return Err(RequestError::Invalid("mtu")),
        };
        Ok(Self(Interface {
            name: name(&entry.name)?,
            mac: mac(&entry.hwAddr)?,
            addresses: entry
                .IPAddresses
                .iter()
                .map(address)
                .collect::<Result<_, _>>()?,
            mtu,
            no_arp: entry.raw_flags & IFF_NOARP != 0,
        }))
    }
}

fn routes(all: &[Route]) -> Asked<'_> {
    let addresses = all.iter().flat_map(|route| {
        let destination = route.destination.map(|one| one.ip);
        [destination, route.gateway, route.source]
    });
    Asked::Network {
        devices: all.iter().map(|route| route.device.as_str()).collect(),
        addresses: addresses.flatten().collect(),
    }
}

fn neighbors(all: &[Neighbor]) -> Asked<'_> {
    Asked::Network {
        devices: all.iter().map(|one| one.device.as_str()).collect(),
        addresses: all.iter().map(|one| one.ip).collect(),
    }
}

impl Parse for UpdateRoutes {
    type Message = agent::UpdateRoutesRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let routes = message
            .routes
            .into_option()
            .ok_or(RequestError::Missing("routes"))?
            .Routes;
        at_most("routes", routes.len(), LIST_MAX)?;
        let mut routes: Vec<_> = routes.iter().map(route).collect::<Result<_, _>>()?;
        // A gateway is known only once the network it is in has its route.
        routes.sort_by_key(|route: &Route| route.gateway.is_some());
        Ok(Self(routes))
    }
}

fn route(entry: &types::Route) -> Result<Route, RequestError> {
    let destination = match entry.dest.as_str() {
        "" | "default" => None,
        text => {
            let parsed = Address::parse_cidr(text).ok_or(RequestError::Invalid("destination"))?;
            (!parsed.is_everything()).then_some(parsed)
        }
    };
    let gateway = optional_ip("gateway", &entry.gateway)?;
    let source = optional_ip("source", &entry.source)?;
    let v6 = entry.family.enum_value_or_default() == types::IPFamily::v6
        || gateway.is_some_and(|ip| ip.is_ipv6())
        || destination.is_some_and(|prefix| prefix.ip.is_ipv6());
    let mixed = |ip: IpAddr| ip.is_ipv6() != v6;
    if destination.is_some_and(|prefix| mixed(prefix.ip))
        || gateway.is_some_and(mixed)
        || source.is_some_and(mixed)
    {
        return Err(RequestError::Invalid("family of route"));
    }
    const RTNH_F_ONLINK: u32 = 4;
    Ok(Route {
        destination,
        gateway,
        device: name(&entry.device)?,
        source,
        scope: u8::try_from(entry.scope).map_err(|_| RequestError::Invalid("scope"))?,
        v6,
        on_link: entry.flags & RTNH_F_ONLINK != 0,
        mtu: (entry.mtu != 0).then_some(entry.mtu),
    })
}

impl Parse for AddArpNeighbors {
    type Message = agent::AddARPNeighborsRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let list = message
            .neighbors
            .into_option()
            .ok_or(RequestError::Missing("neighbors"))?;
        at_most("neighbors", list.ARPNeighbors.len(), LIST_MAX)?;
        list.ARPNeighbors
            .iter()
            .map(neighbor)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn neighbor(entry: &types::ARPNeighbor) -> Result<Neighbor, RequestError> {
    const NUD_PERMANENT: u16 = 0x80;
    let ip = entry.toIPAddress.get_or_default().address.parse();
    let state = match u16::try_from(entry.state) {
        Ok(0) => NUD_PERMANENT,
        Ok(state) if state < 0x100 => state,
        _ => return Err(RequestError::Invalid("state of neighbor")),
    };
    Ok(Neighbor {
        ip: ip.map_err(|_| RequestError::Invalid("address of neighbor"))?,
        device: name(&entry.device)?,
        mac: mac(&entry.lladdr)?,
        state,
        flags: u8::try_from(entry.flags).map_err(|_| RequestError::Invalid("flags of neighbor"))?,
    })
}

impl Parse for ListInterfaces {
    type Message = agent::ListInterfacesRequest;

    fn parse(_: Self::Message) -> Result<Self, RequestError> {
        Ok(Self)
    }
}

impl Parse for ListRoutes {
    type Message = agent::ListRoutesRequest;

    fn parse(_: Self::Message) -> Result<Self, RequestError> {
        Ok(Self)
    }
}

rule! {
    UpdateInterface => "UpdateInterfaceRequest", |asked| Asked::Interface { name: &asked.0.name, addresses: asked.0.addresses.iter().map(|one| one.ip).collect() };
    UpdateRoutes => "UpdateRoutesRequest", |asked| routes(&asked.0);
    AddArpNeighbors => "AddARPNeighborsRequest", |asked| neighbors(&asked.0);
    ListInterfaces => "ListInterfacesRequest";
    ListRoutes => "ListRoutesRequest";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protobuf::MessageField;

    use super::*;

    #[test]
    fn a_hardware_address_is_six_bytes() {
        let mac = MacAddress::parse("02:00:00:00:00:0a").unwrap();
        assert_eq!(mac.0, [2, 0, 0, 0, 0, 10]);
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:0a:00",
            "02:00:00:00:00:+a",
            "x",
        ] {
            assert_eq!(MacAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_and_odd_names_are_not_the_hosts_business() {
        for text in ["lo", "", ".", "a/b", "a b", "averyveryverylongname"] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(name("eth0.100").is_ok());
    }

    #[test]
    fn routes_without_gateway_come_first() {
        let via = |dest: &str, gateway: &str| types::Route {
            dest: dest.into(),
            gateway: gateway.into(),
            device: "eth0".into(),
            ..Default::default()
        };
        let message = agent::UpdateRoutesRequest {
            routes: MessageField::some(agent::Routes {
                Routes: vec![via("", "10.0.0.1"), via("10.0.0.0/24", "")],
                ..Default::default()
            }),
            ..Default::default()
        };
        let UpdateRoutes(routes) = UpdateRoutes::parse(message).unwrap();
        let gateways: Vec<_> = routes.iter().map(|route| route.gateway.is_some()).collect();
        assert_eq!(gateways, [false, true]);
        assert_eq!(routes.last().unwrap().destination, None);
    }

    #[test]
    fn families_do_not_mix() {
        let entry = types::Route {
            dest: "10.0.0.0/8".into(),
            gateway: "fd00::1".into(),
            device: "eth0".into(),
            ..Default::default()
        };
        assert!(route(&entry).is_err());
    }

    proptest! {
        #[test]
        fn a_hardware_address_survives_its_text(bytes: [u8; 6]) {
            let mac = MacAddress(bytes);
            prop_assert_eq!(MacAddress::parse(&mac.to_string()), Some(mac));
        }
    }
}
