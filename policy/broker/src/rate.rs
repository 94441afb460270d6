//! How often one address may ask.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use crate::peers::network;

/// Requests an address may make at once.
const BURST: f64 = 4000.0;
/// Requests an address gets back in a second.
const PER_SECOND: f64 = 200.0;
/// Addresses remembered.
const ADDRESSES_MAX: usize = 4096;

/// What each address has left.
#[derive(Default)]
pub(crate) struct Rates(HashMap<IpAddr, (f64, Instant)>);

impl Rates {
    /// Whether this address may ask once more.
    pub(crate) fn allow(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = network(address);
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&address) {
            self.0
                .retain(|_, (left, since)| refilled(*left, *since, now) < BURST);
            if self.0.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let (left, since) = self.0.entry(address).or_insert((BURST, now));
        *left = refilled(*left, *since, now);
        *since = now;
        let may = *left >= 1.0;
        if may {
            *left -= 1.0;
        }
        may
    }
}

fn refilled(left: f64, since: Instant, now: Instant) -> f64 {
    let seconds = now.saturating_duration_since(since).as_secs_f64();
    (left + seconds * PER_SECOND).min(BURST)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    #[test]
    fn an_address_that_asks_without_end_is_refused_and_others_are_not() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let [one, other] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
        let allowed = (0..10_000).filter(|_| rates.allow(one, now)).count();
        assert_eq!(allowed, 4000);
        assert!(rates.allow(other, now));
        assert!(rates.allow(one, now + Duration::from_secs(1)));
    }
}
