//! The host's calls: message in, permit, act, answer out.

mod answers;
mod service;
mod status;

use std::sync::Arc;

use agent_protocol::rpc::{agent_ttrpc::create_agent_service, health_ttrpc::create_health};
use ttrpc::r#async::Server;

pub use service::Guest;
pub use status::CallError;

/// The version that the guest tells.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A server for the guest's services, listening.
///
/// # Errors
///
/// When the address cannot be listened on.
pub async fn serve(guest: Guest, address: &str) -> ttrpc::Result<Server> {
    let guest = Arc::new(guest);
    let mut server = Server::new()
        .bind(address)?
        .register_service(create_agent_service(guest.clone()))
        .register_service(create_health(guest));
    server.start().await?;
    Ok(server)
}
