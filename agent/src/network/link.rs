//! Network cards and their addresses.

use std::time::Duration;

use agent_requests::{Interface, MacAddress, UpdateInterface};
use futures::TryStreamExt;
use policy_engine::Permit;
use rtnetlink::{
    LinkUnspec,
    packet_route::{
        address::AddressMessage,
        link::{LinkAttribute, LinkMessage},
    },
};
use tokio::time::{Instant, sleep};

use super::{Network, NetworkError, refused};

/// How long a card may take to appear after the guest has started.
const CARD_TIME_MAX: Duration = Duration::from_secs(5);
const CARD_POLL: Duration = Duration::from_millis(10);
const LOOPBACK: &str = "lo";

/// What the agent needs to know of a link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Option<MacAddress>,
    pub(super) mtu: u32,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddress),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        link
    }
}

const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn is_busy(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(nix::errno::Errno::EBUSY as i32))
}

impl Network {
    pub(super) async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        let mut tries_left = BUSY_TRIES;
        loop {
            let links: Result<Vec<_>, _> = self.kernel.link().get().execute().try_collect().await;
            match links {
                // The kernel lists one thing at a time for a socket.
                Err(error) if tries_left > 0 && is_busy(&error) => tries_left -= 1,
                Err(error) => return Err(refused("list the links", "the guest")(error)),
                Ok(links) => return Ok(links.into_iter().map(Link::from).collect()),
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    pub(super) async fn index_of(&self, name: &str) -> Result<u32, NetworkError> {
        let links = self.links().await?;
        let found = links.iter().find(|link| link.name == name);
        found
            .map(|link| link.index)
            .ok_or_else(|| NetworkError::NoInterface(name.to_owned()))
    }

    pub(super) async fn addresses(&self, index: u32) -> Result<Vec<AddressMessage>, NetworkError> {
        let addresses = self
            .kernel
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        addresses
            .try_collect()
            .await
            .map_err(refused("list the addresses", "an interface"))
    }

    /// Brings the loopback interface up.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn loopback_up(&self) -> Result<(), NetworkError> {
        let index = self.index_of(LOOPBACK).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.kernel
            .link()
            .set(up)
            .execute()
            .await
            .map_err(refused("change the state", LOOPBACK))
    }

    /// Sets an interface up: its name, its addresses in place of the old ones, its
    /// largest packet; and brings it up.
    ///
    /// # Errors
    ///
    /// When no such card appears, or the kernel refuses a step.
    pub async fn update_interface(
        &self,
        permit: &Permit<UpdateInterface>,
    ) -> Result<(), NetworkError> {
        self.measure(permit.request())?;
        let UpdateInterface(wanted) = permit.request();
        let link = self.wait_for_card(wanted).await?;
        // A link that is up cannot be renamed.
        let down = LinkUnspec::new_with_index(link.index).down().build();
        self.set_link(down, "change the state", &wanted.name)
            .await?;
        self.replace_addresses(link.index, wanted).await?;
        if link.name != wanted.name {
            self.make_room(&wanted.name).await?;
            let rename = LinkUnspec::new_with_index(link.index)
                .name(wanted.name.clone())
                .build();
            self.set_link(rename, "change the name", &wanted.name)
                .await?;
        }
        let mut up = LinkUnspec::new_with_index(link.index)
            .arp(!wanted.no_arp)
            .up();
        if let Some(mtu) = wanted.mtu {
            up = up.mtu(mtu);
        }
        self.set_link(up.build(), "change the state", &wanted.name)
            .await
    }

    async fn set_link(
        &self,
        message: LinkMessage,
        step: &'static str,
        name: &str,
    ) -> Result<(), NetworkError> {
        self.kernel
            .link()
            .set(message)
            .execute()
            .await
            .map_err(refused(step, name))
    }

    async fn wait_for_card(&self, wanted: &Interface) -> Result<Link, NetworkError> {
        let deadline = Instant::now() + CARD_TIME_MAX;
        loop {
            let links = self.links().await?;
            if let Some(link) = links.into_iter().find(|link| link.mac == Some(wanted.mac)) {
                return Ok(link);
            }
            if Instant::now() >= deadline {
                return Err(NetworkError::NoCard(wanted.mac.to_string()));
            }
            sleep(CARD_POLL).await;
        }
    }

    async fn replace_addresses(&self, index: u32, wanted: &Interface) -> Result<(), NetworkError> {
        let name = wanted.name.as_str();
        for old in self.addresses(index).await? {
            self.kernel
                .address()
                .del(old)
                .execute()
                .await
                .map_err(refused("remove an address", name))?;
        }
        for new in &wanted.addresses {
            let add = self
                .kernel
                .address()
                .add(index, new.ip, new.prefix)
                .replace();
            add.execute()
                .await
                .map_err(refused("add an address", name))?;
        }
        Ok(())
    }

    /// Moves a link aside that has the name which another is to get.
    async fn make_room(&self, name: &str) -> Result<(), NetworkError> {
        let links = self.links().await?;
        let Some(link) = links.iter().find(|link| link.name == name) else {
            return Ok(());
        };
        let aside = format!("k{}_temp", link.index);
        let down = LinkUnspec::new_with_index(link.index).down().build();
        self.set_link(down, "change the state", name).await?;
        let rename = LinkUnspec::new_with_index(link.index).name(aside).build();
        self.set_link(rename, "change the name", name).await
    }
}
