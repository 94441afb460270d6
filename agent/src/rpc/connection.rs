//! The host's connection: one at a time, from the host itself, with small writes.
//!
//! The first that says something speaks for the host, and others are refused while it lives;
//! when it ends another may come, and the containers go on. One that says nothing may be the
//! remains of an attempt that the host gave up, so it keeps nobody out, and ends after a
//! while. Over vsock only the host is heard: what runs in the guest could reach the same port
//! by the guest's own address.
//!
//! From Linux 6.12 on, the guest's vsock driver puts a large write into a packet of
//! several descriptors. `vhost-device-vsock` 0.3, the device of hosts without
//! `/dev/vhost-vsock`, reads packets of one and silently drops the others, after
//! which both sides wait for ever. Writes below the driver's limit, 32 KiB with its
//! overhead, are never split; to the kernel's own device they cost nothing.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt as _, future, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};
use tracing::warn;
use ttrpc::r#async::transport::{Listener, Socket};

use super::in_flight::InFlight;

const WRITE_BYTES_MAX: usize = 28 << 10;
/// Most connections at a time that have said nothing.
const SILENT_MAX: usize = 16;
/// How long one may say nothing. A shim speaks as soon as it is connected.
const SILENT_TIME: Duration = Duration::from_secs(60);

/// Listens on `vsock://-1:PORT` or `unix://PATH`.
///
/// # Errors
///
/// When the address is not one of these, or cannot be listened on.
pub(super) fn listen(address: &str) -> io::Result<Listener> {
    let Some(vsock) = address.strip_prefix("vsock://") else {
        return Ok(one_at_a_time(Listener::bind(address)?));
    };
    let port = vsock.strip_prefix("-1:").and_then(|port| port.parse().ok());
    let port = port.ok_or(io::ErrorKind::InvalidInput)?;
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
    Ok(one_at_a_time(from_host(listener)))
}

fn from_host(listener: VsockListener) -> impl Stream<Item = io::Result<Socket>> + Send {
    let accepted = stream::unfold(listener, |listener| async {
        Some((listener.accept().await, listener))
    });
    accepted.filter_map(|accepted| {
        future::ready(match accepted {
            Ok((socket, peer)) if is_host(&peer) => Some(Ok(Socket::from(socket))),
            Ok(_) => {
                warn!("connection refused that is not from the host");
                None
            }
            Err(error) => Some(Err(error)),
        })
    })
}

fn is_host(peer: &VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST
}

fn one_at_a_time(listener: impl Stream<Item = io::Result<Socket>> + Send + 'static) -> Listener {
    let speaker = Arc::new(Speaker::default());
    Listener::new(listener.filter_map(move |accepted| {
        future::ready(
            match accepted.map(|socket| Connection::accept(socket, &speaker)) {
                Ok(Some(connection)) => Some(Ok(connection)),
                Ok(None) => {
                    warn!("connection refused: too many wait");
                    None
                }
                Err(error) => Some(Err(error)),
            },
        )
    }))
}

/// Who speaks for the host.
#[derive(Debug, Default)]
struct Speaker {
    spoken_for: AtomicBool,
    waiting: AtomicUsize,
}

/// A connection; takes [`WRITE_BYTES_MAX`] at a time.
struct Connection {
    socket: Socket,
    stand: Stand,
    in_flight: InFlight,
}

/// Where a connection stands.
enum Stand {
    /// It has said nothing.
    Silent(Silent),
    /// It speaks for the host.
    Speaking { _place: Speaking },
    /// It has ended, or was refused.
    Over,
}

/// One of the connections that have said nothing.
struct Silent {
    speaker: Arc<Speaker>,
    until: Pin<Box<Sleep>>,
}

/// The right to speak for the host, free again when this goes.
struct Speaking(Arc<Speaker>);

impl Drop for Silent {
    fn drop(&mut self) {
        self.speaker.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        self.0.spoken_for.store(false, Ordering::Release);
    }
}

impl Connection {
    fn accept(socket: Socket, speaker: &Arc<Speaker>) -> Option<Self> {
        let before = speaker.waiting.fetch_add(1, Ordering::AcqRel);
        let silent = Silent {
            speaker: Arc::clone(speaker),
            until: Box::pin(sleep(SILENT_TIME)),
        };
        (before < SILENT_MAX).then_some(Self {
            socket,
            stand: Stand::Silent(silent),
            in_flight: InFlight::default(),
        })
    }

    /// Waits on, unless nothing was said for too long.
    fn silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Stand::Silent(Silent { until, .. }) = &mut self.stand {
            ready!(until.as_mut().poll(context));
            self.stand = Stand::Over;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// What comes of a connection of which so many bytes were read.
    fn heard(&mut self, bytes: usize) -> io::Result<()> {
        let refused = || Err(io::ErrorKind::ConnectionRefused.into());
        match (&self.stand, bytes) {
            (_, 0) => self.stand = Stand::Over,
            (Stand::Speaking { .. }, _) => {}
            (Stand::Over, _) => return refused(),
            (Stand::Silent(Silent { speaker, .. }), _) => {
                if speaker.spoken_for.swap(true, Ordering::AcqRel) {
                    warn!("connection refused: there is one already");
                    self.stand = Stand::Over;
                    return refused();
                }
                let place = Speaking(Arc::clone(speaker));
                self.stand = Stand::Speaking { _place: place };
            }
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !self.in_flight.has_room(context) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.socket).poll_read(context, buffer) else {
            return self.silence(context);
        };
        // After an error nothing more is heard. Calls that still wait keep the rest of the
        // connection for as long as they last.
        let bytes = read.as_ref().map_or(0, |()| buffer.filled().len() - before);
        let heard = self.heard(bytes).and_then(|()| {
            let new = buffer.filled().get(before..).unwrap_or_default();
            self.in_flight.read(new)
        });
        if heard.is_err() {
            buffer.set_filled(before);
        }
        Poll::Ready(read.and(heard))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let first = bytes.get(..WRITE_BYTES_MAX).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut self.socket).poll_write(context, first))?;
        self.in_flight
            .written(first.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_large_write_is_taken_in_parts_and_arrives_whole() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut writer = Connection::accept(Socket::new(near), &Arc::default()).unwrap();
        let sent = vec![7; 100_000];
        assert_eq!(writer.write(&sent).await.unwrap(), WRITE_BYTES_MAX);
        writer.write_all(&sent[WRITE_BYTES_MAX..]).await.unwrap();
        drop(writer);
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
    }

    fn pair(speaker: &Arc<Speaker>) -> (Connection, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(16);
        (Connection::accept(Socket::new(near), speaker).unwrap(), far)
    }

    #[tokio::test]
    async fn a_second_connection_is_refused_until_the_first_has_ended() {
        let speaker = Arc::default();
        let mut byte = [0];
        let (mut silent, _far) = pair(&speaker);
        let (mut first, mut host) = pair(&speaker);
        host.write_all(b"1").await.unwrap();
        first.read_exact(&mut byte).await.unwrap();
        let (mut second, mut other) = pair(&speaker);
        other.write_all(b"2").await.unwrap();
        let error = second.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        drop(host);
        assert_eq!(first.read(&mut byte).await.unwrap(), 0);
        // Somebody still has the first one, but it is over.
        let (mut third, mut host) = pair(&speaker);
        host.write_all(b"3").await.unwrap();
        third.read_exact(&mut byte).await.unwrap();
        drop((first, second));
        let (mut fourth, mut other) = pair(&speaker);
        other.write_all(b"4").await.unwrap();
        assert!(fourth.read(&mut byte).await.is_err());
        assert!(matches!(silent.stand, Stand::Silent(_)));
        silent.heard(0).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_ends() {
        let speaker = Arc::default();
        let (mut silent, _far) = pair(&speaker);
        let (mut speaking, mut host) = pair(&speaker);
        host.write_all(b"1").await.unwrap();
        speaking.read_exact(&mut [0]).await.unwrap();
        let error = silent.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(speaker.waiting.load(Ordering::Relaxed), 0);
        // Who has spoken may pause for as long as it likes.
        let mut byte = [0];
        let pause = tokio::time::timeout(SILENT_TIME * 10, speaking.read(&mut byte));
        assert!(pause.await.is_err());
    }

    #[tokio::test]
    async fn silent_connections_are_bounded_and_keep_nobody_out() {
        let speaker: Arc<Speaker> = Arc::default();
        let socket = || Socket::new(tokio::io::duplex(1).0);
        let accept = || Connection::accept(socket(), &speaker);
        let waiting: Vec<_> = (0..SILENT_MAX).map(|_| accept().unwrap()).collect();
        assert!(accept().is_none());
        assert!(!speaker.spoken_for.load(Ordering::Relaxed));
        drop(waiting);
        assert!(accept().is_some());
    }

    #[test]
    fn only_the_host_is_heard() {
        assert!(is_host(&VsockAddr::new(VMADDR_CID_HOST, 5000)));
        for cid in [0, 1, 3, 42, VMADDR_CID_ANY] {
            assert!(!is_host(&VsockAddr::new(cid, 5000)), "{cid}");
        }
    }
}
