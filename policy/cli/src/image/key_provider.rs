//! `kata-cc image key-provider`: wraps layer keys for skopeo and other ocicrypt users.
//!
//! Whoever can connect can have something wrapped, which gives nothing away: the
//! result is ciphertext under the owner's key. Unwrapping hands out layer keys, so
//! it is off unless asked for, and the service listens on the loopback address only.
//! Loopback is still open to every user of this machine, and the help says so.

mod protocol;
pub(crate) mod wire;

use std::{net::SocketAddr, sync::Arc};

use agent_keys::OfflineKeys;
use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tonic::{Request, Response, Status, transport::Server};
use wire::{Input, KeyProviderService, KeyProviderServiceServer, Output};

use crate::image::keys::{KeyFiles, KeyOptionError};

/// Largest request; ocicrypt's hold one layer's options.
const REQUEST_MAX_BYTES: usize = 1024 * 1024;

/// Serve ocicrypt's key-provider protocol (gRPC), so that skopeo encrypts for our guests.
///
/// Runs until Ctrl-C. With this in a file that OCICRYPT_KEYPROVIDER_CONFIG names:
///
///   {"key-providers":{"attestation-agent":{"grpc":"127.0.0.1:50000"}}}
///
/// skopeo copy --encryption-key provider:attestation-agent:keyid=kbs:///default/key/1 …
///
/// encrypts for that key, which a key file has or keypath=FILE names.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// Loopback address and port; with port 0 a free one is chosen and printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50000")]
    listen: SocketAddr,
    /// Unwrap, too, so that skopeo can decrypt: every user of this machine can then have
    /// layer keys opened while the service runs.
    #[arg(long)]
    unwrap: bool,
    #[command(flatten)]
    keys: KeyFiles,
}

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Key(#[from] KeyOptionError),
    #[error("{0} is not a loopback address: anybody on the network could use the owner's keys")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error("cannot watch for signals")]
    Signals(#[source] std::io::Error),
    #[error("the service failed")]
    Serve(#[source] tonic::transport::Error),
}

/// Serves until a signal ends it.
pub(crate) async fn run(options: &Options) -> Result<(), ServeError> {
    if !options.listen.ip().is_loopback() {
        return Err(ServeError::NotLoopback(options.listen));
    }
    let failed = |error| ServeError::Listen(options.listen, error);
    let service = Service {
        keys: Arc::new(options.keys.load()?),
        unwrap: options.unwrap,
    };
    let mut interrupted = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    println!("{}", listener.local_addr().map_err(failed)?);
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let server =
        KeyProviderServiceServer::new(service).max_decoding_message_size(REQUEST_MAX_BYTES);
    let stop = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    Server::builder()
        .add_service(server)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
        .map_err(ServeError::Serve)
}

struct Service {
    keys: Arc<OfflineKeys>,
    unwrap: bool,
}

#[tonic::async_trait]
impl KeyProviderService for Service {
    async fn wrap_key(&self, request: Request<Input>) -> Result<Response<Output>, Status> {
        let keys = self.keys.clone();
        answer(move || protocol::wrap(&request.into_inner().bytes, &keys)).await
    }

    async fn un_wrap_key(&self, request: Request<Input>) -> Result<Response<Output>, Status> {
        if !self.unwrap {
            return Err(Status::permission_denied(
                "this service only wraps; start it with --unwrap to let it decrypt",
            ));
        }
        let keys = self.keys.clone();
        answer(move || protocol::unwrap(&request.into_inner().bytes, &keys)).await
    }
}

/// Keys may be read from files, so this leaves the network's thread.
async fn answer(
    work: impl FnOnce() -> Result<Vec<u8>, protocol::ProtocolError> + Send + 'static,
) -> Result<Response<Output>, Status> {
    let result = tokio::task::spawn_blocking(work).await;
    match result.map_err(|_| Status::internal("the key could not be worked with"))? {
        Ok(bytes) => Ok(Response::new(Output { bytes })),
        Err(error) => {
            let sentence = crate::sentence(&error.into());
            eprintln!("kata-cc: {sentence}");
            Err(Status::invalid_argument(sentence))
        }
    }
}
