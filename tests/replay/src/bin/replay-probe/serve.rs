//! The servers of `agnhost netexec`: HTTP that answers anything with the host's name, and UDP
//! that sends back what it gets.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, UdpSocket},
    thread,
};

pub(crate) fn serve(words: impl Iterator<Item = String>) -> io::Result<()> {
    for word in words {
        if let Some(port) = word.strip_prefix("--udp-port=").and_then(port) {
            let socket = UdpSocket::bind(("0.0.0.0", port))?;
            thread::spawn(move || echo(&socket));
        }
        if let Some(port) = word.strip_prefix("--http-port=").and_then(port) {
            let listener = TcpListener::bind(("0.0.0.0", port))?;
            thread::spawn(move || http(&listener));
        }
    }
    loop {
        thread::park();
    }
}

/// `-1` is none.
fn port(digits: &str) -> Option<u16> {
    digits.parse().ok()
}

fn echo(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(buffer.get(..length).unwrap_or_default(), from)?;
    }
}

fn http(listener: &TcpListener) -> io::Result<()> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let name = name.trim();
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut buffer = [0; 1024];
        // A probe that only connects sends nothing.
        if stream.read(&mut buffer).unwrap_or(0) > 0 {
            let length = name.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
            );
        }
    }
    Ok(())
}
