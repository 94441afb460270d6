//! A user at the other end of a stream of containerd's: what `kubectl exec` and `attach` are to
//! a kubelet. It sends its last argument, prints what comes back until that is there, and goes.
//!
//! WebSockets (RFC 6455) with the protocol `v4.channel.k8s.io`: the first byte of a message is
//! its channel, 0 input, 1 output, 2 errors, 3 how it ended. Run on the node, because
//! containerd listens on loopback there.

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

fn main() -> io::Result<()> {
    let words: Vec<_> = env::args().skip(1).collect();
    let [url, input] = words.as_slice() else {
        return Err(io::Error::other("usage: replay-stream URL INPUT"));
    };
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    upgrade(&mut stream, address, path)?;
    if !input.is_empty() {
        send(&mut stream, BINARY, &[b"\0", input.as_bytes()].concat())?;
    }
    let said = listen(&mut stream, input)?;
    let mut out = io::stdout();
    out.write_all(&said)?;
    out.flush()?;
    // A client that goes says so; what it had given as input ends.
    let _ = send(&mut stream, CLOSE, &[]);
    Ok(())
}

fn upgrade(stream: &mut TcpStream, address: &str, path: &str) -> io::Result<()> {
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&head).into_owned(),
    ))
}

/// Sends one frame, masked with zeros, which leaves it as it is.
fn send(stream: &mut TcpStream, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u8::try_from(payload.len())
        .ok()
        .filter(|length| *length < 126);
    let length = length.ok_or_else(|| io::Error::other("the input is too long"))?;
    let frame = [&[kind, 0x80 | length, 0, 0, 0, 0], payload].concat();
    stream.write_all(&frame)
}

/// Everything on channels 1 and 2, until it holds `until` or the other side ends.
fn listen(stream: &mut TcpStream, until: &str) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    loop {
        let mut head = [0; 2];
        if stream.read_exact(&mut head).is_err() {
            return Ok(said);
        }
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            127 => return Err(io::Error::other("a longer frame than anybody sends")),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        match (head[0], payload.split_first()) {
            (BINARY, Some((1 | 2, text))) => said.extend(text),
            (CLOSE, _) => return Ok(said),
            _ => {}
        }
        let seen = String::from_utf8_lossy(&said);
        if !until.is_empty() && seen.contains(until) {
            return Ok(said);
        }
    }
}
