//! What the guest knows of its pod.

use agent_requests::PodNames;
use nix::{ifaddrs::InterfaceAddress, net::if_::InterfaceFlags};
use policy_engine::environment::PodFacts;

/// From what the node calls the pod, and from its addresses.
#[must_use]
pub fn pod_facts(names: &PodNames) -> PodFacts {
    let mut facts = PodFacts::default();
    facts.add("metadata.name", &names.name);
    facts.add("metadata.namespace", &names.namespace);
    facts.add("metadata.uid", &names.uid);
    for address in addresses() {
        facts.add("status.podIP", &address);
    }
    facts
}

/// The addresses of the guest's network, which is the pod's; none if they cannot be read.
fn addresses() -> Vec<String> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let address = |one: InterfaceAddress| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| v4.ip().to_string());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().to_string()))
    };
    all.filter(|one| !one.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(address)
        .collect()
}
