//! Routes and neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_requests::{AddArpNeighbors, Neighbor, Route, UpdateRoutes};
use policy_engine::Permit;
use rtnetlink::{
    Error, RouteMessageBuilder,
    packet_route::{
        neighbour::{NeighbourFlags, NeighbourState},
        route::{RouteAttribute, RouteMetric, RouteProtocol, RouteScope},
    },
};

use super::{Network, NetworkError, refused};

const EEXIST: i32 = -17;

impl Network {
    /// Sets routes, in the order that the request was parsed into. Others stay.
    ///
    /// # Errors
    ///
    /// When there is no such interface or the kernel refuses.
    pub async fn update_routes(&self, permit: &Permit<UpdateRoutes>) -> Result<(), NetworkError> {
        self.measure(permit.request())?;
        let UpdateRoutes(routes) = permit.request();
        for route in routes {
            let index = self.index_of(&route.device).await?;
            let message = if route.v6 {
                v6(route, index)
            } else {
                v4(route, index)
            };
            match self.kernel.route().add(message).replace().execute().await {
                Err(Error::NetlinkError(error)) if error.raw_code() == EEXIST => {}
                result => result.map_err(refused("set a route", &route.device))?,
            }
        }
        Ok(())
    }

    /// Makes neighbours known.
    ///
    /// # Errors
    ///
    /// When there is no such interface or the kernel refuses.
    pub async fn add_neighbors(
        &self,
        permit: &Permit<AddArpNeighbors>,
    ) -> Result<(), NetworkError> {
        self.measure(permit.request())?;
        let AddArpNeighbors(neighbors) = permit.request();
        for Neighbor {
            ip,
            device,
            mac,
            state,
            flags,
        } in neighbors
        {
            let index = self.index_of(device).await?;
            let add = self
                .kernel
                .neighbours()
                .add(index, *ip)
                .link_layer_address(&mac.0)
                .state(NeighbourState::from(*state))
                .flags(NeighbourFlags::from_bits_truncate(*flags))
                .replace();
            add.execute()
                .await
                .map_err(refused("set a neighbor", device))?;
        }
        Ok(())
    }
}

fn v4(route: &Route, index: u32) -> rtnetlink::packet_route::route::RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index);
    if let Some(prefix) = route.destination
        && let IpAddr::V4(ip) = prefix.ip
    {
        builder = builder.destination_prefix(ip, prefix.prefix);
    }
    if let Some(IpAddr::V4(gateway)) = route.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(IpAddr::V4(source)) = route.source {
        builder = builder.pref_source(source);
    }
    finish(builder, route)
}

fn v6(route: &Route, index: u32) -> rtnetlink::packet_route::route::RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index);
    if let Some(prefix) = route.destination
        && let IpAddr::V6(ip) = prefix.ip
    {
        builder = builder.destination_prefix(ip, prefix.prefix);
    }
    if let Some(IpAddr::V6(gateway)) = route.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(IpAddr::V6(source)) = route.source {
        builder = builder.pref_source(source);
    }
    finish(builder, route)
}

fn finish<T>(
    builder: RouteMessageBuilder<T>,
    route: &Route,
) -> rtnetlink::packet_route::route::RouteMessage {
    let mut builder = builder
        .protocol(RouteProtocol::Boot)
        .scope(RouteScope::from(route.scope));
    if route.on_link {
        builder = builder.onlink();
    }
    let mut message = builder.build();
    if let Some(mtu) = route.mtu {
        message
            .attributes
            .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}
