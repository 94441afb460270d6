//! Another way to a server on this machine's loopback, which can be taken away.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

pub(crate) struct Relay {
    port: u16,
    ended: Arc<AtomicBool>,
    live: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens at a port, or at any if it is 0.
    pub(crate) fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ended = Arc::new(AtomicBool::new(false));
        let live = Arc::new(Mutex::new(Vec::new()));
        let (seen, joined) = (Arc::clone(&ended), Arc::clone(&live));
        let accepting = thread::spawn(move || {
            for guest in listener.incoming().map_while(Result::ok) {
                if seen.load(Ordering::Acquire) {
                    return;
                }
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let ends = [guest.try_clone().unwrap(), server.try_clone().unwrap()];
                joined.lock().unwrap().extend(ends);
                join(guest, server);
            }
        });
        Self {
            port,
            ended,
            live,
            accepting: Some(accepting),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the one that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for end in self.live.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn join(guest: TcpStream, server: TcpStream) {
    let ways = [
        (guest.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, guest),
    ];
    for (mut from, mut to) in ways {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
