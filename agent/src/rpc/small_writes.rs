//! Writes that leave the guest in one piece each.
//!
//! From Linux 6.12 on, the guest's vsock driver puts a large write into a packet of
//! several descriptors. `vhost-device-vsock` 0.3, the device of hosts without
//! `/dev/vhost-vsock`, reads packets of one and silently drops the others, after
//! which both sides wait for ever. Writes below the driver's limit, 32 KiB with its
//! overhead, are never split; to the kernel's own device they cost nothing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ttrpc::r#async::transport::{Listener, Socket};

const WRITE_BYTES_MAX: usize = 28 << 10;

/// A connection that takes [`WRITE_BYTES_MAX`] at a time.
struct SmallWrites(Socket);

/// Wraps every connection of `listener`.
pub(super) fn small_writes(listener: Listener) -> Listener {
    Listener::new(listener.map(|socket| socket.map(SmallWrites)))
}

impl AsyncRead for SmallWrites {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for SmallWrites {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let first = bytes.get(..WRITE_BYTES_MAX).unwrap_or(bytes);
        Pin::new(&mut self.0).poll_write(context, first)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_large_write_is_taken_in_parts_and_arrives_whole() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut writer = SmallWrites(Socket::new(near));
        let sent = vec![7; 100_000];
        assert_eq!(writer.write(&sent).await.unwrap(), WRITE_BYTES_MAX);
        writer.write_all(&sent[WRITE_BYTES_MAX..]).await.unwrap();
        drop(writer);
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
    }
}
