//! Several owners' brokers for one pod, each with a policy of its own.

use std::collections::BTreeMap;

use agent_keys::{KeyError, KeyProvider, ResourceUri, Secret};

use crate::{Addresses, Broker, Guest};

/// The brokers that initdata names; of a resource's name the repository decides which is asked.
///
/// Which broker has a repository is the guest's configuration, which the launch binds: no image
/// chooses to whom its guest proves itself.
pub struct Brokers {
    default: Option<Broker>,
    of_repositories: BTreeMap<String, Broker>,
}

impl Brokers {
    /// Brokers at these addresses, to each of which the guest proves itself apart; talks to
    /// nobody yet.
    #[must_use]
    pub fn new(addresses: Addresses, guest: impl Fn() -> Guest) -> Self {
        let others = addresses.of_repositories.into_iter();
        Self {
            default: addresses
                .default
                .map(|address| Broker::new(address, guest())),
            of_repositories: others
                .map(|(name, address)| (name, Broker::new(address, guest())))
                .collect(),
        }
    }

    /// How often this guest proved itself, to all of them.
    #[must_use]
    pub fn attestations(&self) -> u64 {
        let brokers = self.of_repositories.values().chain(&self.default);
        brokers.map(Broker::attestations).sum()
    }
}

impl KeyProvider for Brokers {
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
        let repository = uri.path().split('/').next().unwrap_or_default();
        let own = self.of_repositories.get(repository);
        match own.or(self.default.as_ref()) {
            Some(broker) => broker.fetch(uri),
            None => Err(KeyError::Refused {
                uri: uri.clone(),
                reason: "initdata names no broker for its repository".to_owned(),
            }),
        }
    }
}
