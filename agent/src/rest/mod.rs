//! Evidence for workloads: CoCo's REST resources on the pod's own loopback.
//!
//! | request | answer |
//! |---|---|
//! | `GET /aa/evidence?runtime_data=<text>` | evidence in our own form, as `kata-cc verify` reads it; `&encoding=base64` for bytes in base64url without padding |
//! | `GET /info` | version, TEE, features |
//!
//! The paths, parameters and failures are those of Confidential Containers'
//! `api-server-rest`; what it has beyond these is answered 404. The runtime data are
//! the verifier's nonce and go into the report together with the measurement log, so
//! no container can make a report for another purpose.
//!
//! Any process of the pod may ask, so it is a distrusted client: one request a
//! connection, bounded in size and time, few at once.

mod evidence;
mod request;

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use agent_measured::Measured;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tracing::{debug, warn};

use self::{
    evidence::Source,
    request::{Answer, Ask, HEAD_BYTES_MAX, Progress},
};
use crate::{initdata::Hardware, judge::Judge, told::Told};

const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8006);
/// Connections that are served at once; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take to send its request, and to take the answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is a lack of memory or files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the agent ends.
///
/// # Errors
///
/// When the address cannot be listened on.
pub async fn serve(hardware: Hardware, log: Arc<Measured>, judge: Arc<Judge>) -> io::Result<()> {
    let listener = TcpListener::bind(ADDRESS).await?;
    let source = Arc::new(Source::new(hardware, log, judge));
    tokio::spawn(accept(listener, source, CLIENT_PATIENCE));
    Ok(())
}

/// Whether bytes are a whole request, right or wrong; for `fuzz/`.
#[doc(hidden)]
#[must_use]
pub fn is_request(head: &[u8]) -> bool {
    request::parse(head) != Progress::Partial
}

async fn accept(listener: TcpListener, source: Arc<Source>, patience: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let told = Told::new("cannot accept").errno(&error);
                warn!(%told, "evidence connection not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !peer.ip().is_loopback() {
            continue;
        }
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &source, patience).await {
                let told = Told::new("cannot read or write").errno(&error);
                debug!(%told, "evidence connection ended early");
            }
            drop(place);
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    source: &Arc<Source>,
    patience: Duration,
) -> io::Result<()> {
    let ask = timeout(patience, read(&mut stream)).await??;
    let answer = match ask {
        Ok(Ask::Info) => source.info(),
        Ok(Ask::Evidence { nonce }) => evidence::answer(source, nonce).await,
        Err(answer) => answer,
    };
    let sent = async {
        stream.write_all(&answer.to_bytes()).await?;
        stream.shutdown().await
    };
    timeout(patience, sent).await?
}

async fn read(stream: &mut TcpStream) -> io::Result<Result<Ask, Answer>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let left = HEAD_BYTES_MAX.saturating_sub(head.len());
        let limit = u64::try_from(left).unwrap_or(0);
        if limit == 0 {
            return Ok(Err(Answer::TOO_LARGE));
        }
        if (&mut *stream).take(limit).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Progress::Done(ask) = request::parse(&head) {
            return Ok(ask);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    async fn server(patience: Duration) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = evidence::granted(None, Arc::default());
        tokio::spawn(accept(listener, Arc::new(source), patience));
        address
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_guest_without_a_tee_says_so() {
        let address = server(CLIENT_PATIENCE).await;
        let answer = ask(address, b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\"version\""), "{answer}");
        assert!(!answer.contains("\"tee\""), "{answer}");
        let answer = ask(address, b"GET /aa/evidence?runtime_data=n HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("no TEE"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_may_come_in_pieces_and_too_long_a_one_is_refused() {
        let address = server(CLIENT_PATIENCE).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        for piece in [&b"GET /in"[..], b"fo HTTP/1.1\r\n", b"\r\n"] {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX));
        let answer = ask(address, long.get(..HEAD_BYTES_MAX).unwrap().as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn silent_clients_are_left_and_make_room() {
        let address = server(Duration::from_millis(50)).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = ask(address, b"GET /info HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
