//! How many connections one address has. Of IPv6 a network of 64 bits counts as one, because
//! whoever has one address of it usually has them all.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Half of all: many pods may share an address, and none may take everything.
pub(crate) const CONNECTIONS_MAX: usize = 2048;

/// The connections of each address.
#[derive(Default)]
pub(crate) struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// A connection, counted until it is dropped.
pub(crate) struct Held {
    peers: Arc<Peers>,
    network: IpAddr,
}

impl Peers {
    /// Counts one connection more, unless its address has too many.
    pub(crate) fn hold(self: &Arc<Self>, address: IpAddr) -> Option<Held> {
        let network = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Held {
            peers: Arc::clone(self),
            network,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// What counts as one address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_have_every_connection() {
        let peers = Arc::new(Peers::default());
        let one = address("2001:db8::1");
        let mut held: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| peers.hold(one).unwrap())
            .collect();
        assert!(peers.hold(one).is_none());
        // Another address of the same network is no other peer.
        assert!(peers.hold(address("2001:db8::ffff:2")).is_none());
        for other in ["2001:db8:0:1::1", "10.0.0.1"] {
            assert!(peers.hold(address(other)).is_some(), "{other}");
        }
        held.pop();
        assert!(peers.hold(one).is_some());
        drop(held);
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ipv4_address_is_the_same_however_it_is_written() {
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
