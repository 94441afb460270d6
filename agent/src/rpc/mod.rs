//! The host's calls: message in, permit, act, answer out.

mod answers;
mod connection;
mod in_flight;
mod service;
mod status;

use std::sync::Arc;

use agent_protocol::rpc::{agent_ttrpc::create_agent_service, health_ttrpc::create_health};
pub use service::Guest;
pub use status::CallError;
use ttrpc::r#async::Server;

/// A server for the guest's services, listening.
///
/// # Errors
///
/// When the address cannot be listened on.
pub async fn serve(guest: Guest, address: &str) -> ttrpc::Result<Server> {
    let guest = Arc::new(guest);
    let listener =
        connection::listen(address).map_err(|error| ttrpc::Error::Socket(error.to_string()))?;
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(create_agent_service(guest.clone()))
        .register_service(create_health(guest));
    server.start().await?;
    Ok(server)
}
