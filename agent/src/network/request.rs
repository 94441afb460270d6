//! What the host asks of the network, as types that cannot be invalid.

use std::net::IpAddr;

use agent_protocol::rpc::{agent, types};
use thiserror::Error;

/// `IFNAMSIZ` less the terminating zero (linux/if.h).
const LINK_NAME_BYTES_MAX: usize = 15;
/// The most interfaces, routes or neighbours one request may carry.
const ENTRIES_MAX: usize = 1024;
/// Bounds of an MTU: what IPv4 needs at least, and what the kernel takes at most.
const MTU_RANGE: std::ops::RangeInclusive<u64> = 68..=65_536;
/// `IFF_NOARP` (linux/if.h), the only flag of an interface that is applied.
const IFF_NOARP: u32 = 0x80;

/// Why a network request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkRequestError {
    /// The message itself is missing.
    #[error("the request carries no {0}")]
    Missing(&'static str),
    /// More entries than any pod needs.
    #[error("more than {ENTRIES_MAX} {0}")]
    TooMany(&'static str),
    /// A link name that the kernel would not take, or that is not the pod's.
    #[error("'{0}' is no name of a pod's link")]
    LinkName(String),
    /// Not six pairs of hexadecimal digits, or all zero.
    #[error("'{0}' is no hardware address")]
    HardwareAddress(String),
    /// Not an IP address.
    #[error("'{0}' is no IP address")]
    Address(String),
    /// A prefix length that does not fit the address.
    #[error("'{0}' is no prefix length of its address")]
    Prefix(String),
    /// An MTU out of range.
    #[error("an MTU of {0} is out of range")]
    Mtu(u64),
    /// A scope or neighbour state out of range.
    #[error("{field} {value} is out of range")]
    Range {
        /// The field of the message.
        field: &'static str,
        /// What it held.
        value: i64,
    },
}

/// A link of the pod: never `lo`, never a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinkName(String);

impl LinkName {
    fn parse(text: &str) -> Result<Self, NetworkRequestError> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        let fits = (1..=LINK_NAME_BYTES_MAX).contains(&text.len());
        if fits && printable && !matches!(text, "lo" | "." | "..") {
            return Ok(Self(text.to_owned()));
        }
        Err(NetworkRequestError::LinkName(text.chars().take(LINK_NAME_BYTES_MAX).collect()))
    }

    /// The name as the kernel knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardwareAddress([u8; 6]);

impl HardwareAddress {
    fn parse(text: &str) -> Result<Self, NetworkRequestError> {
        let refused = || NetworkRequestError::HardwareAddress(text.chars().take(32).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refused)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        if parts.next().is_some() || bytes == [0; 6] {
            return Err(refused());
        }
        Ok(Self(bytes))
    }

    /// The six bytes in transmission order.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }
}

/// An address and how many of its bits name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// At most 32 or 128, by the family of the address.
    pub length: u8,
}

impl Prefix {
    fn parse(address: &str, length: &str) -> Result<Self, NetworkRequestError> {
        let address = parse_address(address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        match length.parse::<u8>() {
            Ok(length) if length <= longest => Ok(Self { address, length }),
            _ => Err(NetworkRequestError::Prefix(length.chars().take(8).collect())),
        }
    }
}

fn parse_address(text: &str) -> Result<IpAddr, NetworkRequestError> {
    text.parse().map_err(|_| NetworkRequestError::Address(text.chars().take(64).collect()))
}

fn bounded<'a, T>(list: &'a [T], what: &'static str) -> Result<&'a [T], NetworkRequestError> {
    if list.len() > ENTRIES_MAX { Err(NetworkRequestError::TooMany(what)) } else { Ok(list) }
}

/// `UpdateInterface`: how one link is to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceUpdate {
    /// The link is found by this address.
    pub hardware_address: HardwareAddress,
    /// The name it gets.
    pub name: LinkName,
    /// The addresses it gets instead of those it has.
    pub addresses: Vec<Prefix>,
    /// The MTU in bytes; `None` leaves it.
    pub mtu: Option<u32>,
    /// Whether address resolution is off.
    pub no_arp: bool,
}

impl InterfaceUpdate {
    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`NetworkRequestError`] names the field that is wrong.
    pub fn parse(wire: &types::Interface) -> Result<Self, NetworkRequestError> {
        let addresses = bounded(&wire.IPAddresses, "addresses")?
            .iter()
            .map(|entry| Prefix::parse(&entry.address, &entry.mask))
            .collect::<Result<_, _>>()?;
        let mtu = match wire.mtu {
            0 => None,
            mtu if MTU_RANGE.contains(&mtu) => {
                Some(u32::try_from(mtu).map_err(|_| NetworkRequestError::Mtu(mtu))?)
            }
            mtu => return Err(NetworkRequestError::Mtu(mtu)),
        };
        Ok(Self {
            hardware_address: HardwareAddress::parse(&wire.hwAddr)?,
            name: LinkName::parse(&wire.name)?,
            addresses,
            mtu,
            no_arp: wire.raw_flags & IFF_NOARP != 0,
        })
    }
}

/// One route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `None` is the default route.
    pub destination: Option<Prefix>,
    /// The next hop, if not directly connected.
    pub gateway: Option<IpAddr>,
    /// The link it leaves by.
    pub link: LinkName,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// `RT_SCOPE_*` (linux/rtnetlink.h).
    pub scope: u8,
    /// Whether the route is of IPv6; told by the addresses, else by the message.
    pub is_ipv6: bool,
}

impl Route {
    fn parse(wire: &types::Route) -> Result<Self, NetworkRequestError> {
        let destination = match wire.dest.as_str() {
            "" => None,
            text => Some(match text.split_once('/') {
                Some((address, length)) => Prefix::parse(address, length)?,
                None => Self::host(parse_address(text)?),
            }),
        };
        let optional = |text: &str| (!text.is_empty()).then(|| parse_address(text)).transpose();
        let gateway = optional(&wire.gateway)?;
        let told = destination.map(|prefix| prefix.address).or(gateway);
        let is_v6 = wire.family.enum_value() == Ok(types::IPFamily::v6);
        Ok(Self {
            destination,
            gateway,
            link: LinkName::parse(&wire.device)?,
            source: optional(&wire.source)?,
            scope: u8::try_from(wire.scope).map_err(|_| NetworkRequestError::Range {
                field: "scope",
                value: wire.scope.into(),
            })?,
            is_ipv6: told.map_or(is_v6, |address| address.is_ipv6()),
        })
    }

    fn host(address: IpAddr) -> Prefix {
        Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// `UpdateRoutes`: routes in the order in which they can be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutesUpdate(Vec<Route>);

impl RoutesUpdate {
    /// Reads the message and puts routes without a gateway first, because the
    /// others need them to reach theirs.
    ///
    /// # Errors
    ///
    /// [`NetworkRequestError`] names the field that is wrong.
    pub fn parse(wire: &agent::Routes) -> Result<Self, NetworkRequestError> {
        let mut routes = bounded(&wire.Routes, "routes")?
            .iter()
            .map(Route::parse)
            .collect::<Result<Vec<_>, _>>()?;
        routes.sort_by_key(|route| route.gateway.is_some());
        Ok(Self(routes))
    }

    /// The routes, each after those it needs.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.0
    }
}

/// One entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Whom it describes.
    pub address: IpAddr,
    /// The link behind which it is.
    pub link: LinkName,
    /// Its hardware address.
    pub hardware_address: HardwareAddress,
    /// `NUD_*` (linux/neighbour.h).
    pub state: u16,
    /// `NTF_*` (linux/neighbour.h).
    pub flags: u8,
}

/// `NUD_PERMANENT` (linux/neighbour.h): what state 0 stands for.
const NUD_PERMANENT: u16 = 0x80;

/// `AddARPNeighbors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbours(Vec<Neighbour>);

impl Neighbours {
    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`NetworkRequestError`] names the field that is wrong.
    pub fn parse(wire: &agent::ARPNeighbors) -> Result<Self, NetworkRequestError> {
        bounded(&wire.ARPNeighbors, "neighbours")?
            .iter()
            .map(Self::entry)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn entry(wire: &types::ARPNeighbor) -> Result<Neighbour, NetworkRequestError> {
        let to = wire.toIPAddress.as_ref().ok_or(NetworkRequestError::Missing("address"))?;
        let range = |field, value: i32| NetworkRequestError::Range { field, value: value.into() };
        let state = match wire.state {
            0 => NUD_PERMANENT,
            state => u16::try_from(state).map_err(|_| range("state", state))?,
        };
        Ok(Neighbour {
            address: parse_address(&to.address)?,
            link: LinkName::parse(&wire.device)?,
            hardware_address: HardwareAddress::parse(&wire.lladdr)?,
            state,
            flags: u8::try_from(wire.flags).map_err(|_| range("flags", wire.flags))?,
        })
    }

    /// The entries in the order of the message.
    #[must_use]
    pub fn entries(&self) -> &[Neighbour] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> types::Interface {
        types::Interface {
            name: "eth0".into(),
            hwAddr: "02:00:0a:58:00:02".into(),
            mtu: 1450,
            IPAddresses: vec![types::IPAddress {
                address: "10.88.0.2".into(),
                mask: "16".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn interface_is_read_in_full() {
        let update = InterfaceUpdate::parse(&types::Interface { raw_flags: 0x81, ..interface() });
        let update = update.unwrap();
        assert_eq!(update.name.as_str(), "eth0");
        assert_eq!(update.hardware_address.as_bytes(), &[2, 0, 10, 88, 0, 2]);
        assert_eq!(update.mtu, Some(1450));
        assert!(update.no_arp);
        let address = "10.88.0.2".parse().unwrap();
        assert_eq!(update.addresses, [Prefix { address, length: 16 }]);
    }

    #[test]
    fn interface_refuses_each_field_that_is_wrong() {
        for name in ["", "lo", "..", "a/b", "a b", "sixteen-letters-", "e\0h"] {
            let wire = types::Interface { name: name.into(), ..interface() };
            let refused = InterfaceUpdate::parse(&wire);
            assert!(matches!(refused, Err(NetworkRequestError::LinkName(_))), "{name:?}");
        }
        for mac in ["", "0:0:0:0:0:1", "00:00:00:00:00:00", "02:00:0a:58:00", "02:00:0a:58:00:02:03"] {
            let wire = types::Interface { hwAddr: mac.into(), ..interface() };
            let refused = InterfaceUpdate::parse(&wire);
            assert!(matches!(refused, Err(NetworkRequestError::HardwareAddress(_))), "{mac:?}");
        }
        for mtu in [1, 67, 65_537, u64::MAX] {
            let wire = types::Interface { mtu, ..interface() };
            assert_eq!(InterfaceUpdate::parse(&wire), Err(NetworkRequestError::Mtu(mtu)));
        }
    }

    #[test]
    fn prefix_must_fit_its_family() {
        assert!(Prefix::parse("10.0.0.1", "32").is_ok());
        assert!(Prefix::parse("::1", "128").is_ok());
        for (address, length) in [("10.0.0.1", "33"), ("::1", "129"), ("::1", "-1"), ("::1", "")] {
            assert!(
                matches!(Prefix::parse(address, length), Err(NetworkRequestError::Prefix(_))),
                "{address}/{length}"
            );
        }
        assert!(matches!(Prefix::parse("host", "1"), Err(NetworkRequestError::Address(_))));
    }

    #[test]
    fn routes_without_gateway_come_first() {
        let route = |dest: &str, gateway: &str| types::Route {
            dest: dest.into(),
            gateway: gateway.into(),
            device: "eth0".into(),
            ..Default::default()
        };
        let wire = agent::Routes {
            Routes: vec![route("", "10.88.0.1"), route("10.88.0.0/16", "")],
            ..Default::default()
        };
        let update = RoutesUpdate::parse(&wire).unwrap();
        let gateways: Vec<_> = update.routes().iter().map(|route| route.gateway).collect();
        assert_eq!(gateways, [None, Some("10.88.0.1".parse().unwrap())]);
        let through_lo = agent::Routes {
            Routes: vec![types::Route { device: "lo".into(), ..Default::default() }],
            ..Default::default()
        };
        assert!(RoutesUpdate::parse(&through_lo).is_err());
    }

    #[test]
    fn neighbour_without_state_is_permanent() {
        let wire = types::ARPNeighbor {
            toIPAddress: protobuf::MessageField::some(types::IPAddress {
                address: "10.88.0.1".into(),
                ..Default::default()
            }),
            device: "eth0".into(),
            lladdr: "02:00:00:00:00:01".into(),
            ..Default::default()
        };
        let list = |entry| agent::ARPNeighbors { ARPNeighbors: vec![entry], ..Default::default() };
        let parsed = Neighbours::parse(&list(wire.clone())).unwrap();
        assert_eq!(parsed.entries().first().map(|entry| entry.state), Some(NUD_PERMANENT));
        let negative = types::ARPNeighbor { state: -1, ..wire };
        assert_eq!(
            Neighbours::parse(&list(negative)),
            Err(NetworkRequestError::Range { field: "state", value: -1 })
        );
    }

    #[test]
    fn lists_are_bounded() {
        let wire = agent::Routes {
            Routes: vec![types::Route::default(); ENTRIES_MAX + 1],
            ..Default::default()
        };
        assert_eq!(RoutesUpdate::parse(&wire), Err(NetworkRequestError::TooMany("routes")));
    }
}
