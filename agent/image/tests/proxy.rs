//! Proxies: used for what they are for, and not for what is excluded.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use agent_image::Puller;
use support::*;

/// A proxy that answers `CONNECT` and counts.
fn proxy(target: u16) -> (u16, Arc<AtomicUsize>, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connections, head) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(String::new())),
    );
    let (counted, seen) = (connections.clone(), head.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut client = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut text = String::new();
            while !text.ends_with("\r\n\r\n") {
                reader.read_line(&mut text).unwrap();
            }
            *seen.lock().unwrap() = text;
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", target)).unwrap();
            let mut back = server.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut back, &mut client));
            std::thread::spawn(move || std::io::copy(&mut reader, &mut server));
        }
    });
    (port, connections, head)
}

#[test]
fn proxy_is_used_unless_the_registry_is_excluded() {
    let mut files = Files::default();
    files.image(&[gzip(&Tar::new().file("f", b"x").end())]);
    let registry = Registry::serving(files);
    let (port, connections, head) = proxy(registry.port);
    let directory = directory();
    for (index, (no_proxy, used)) in [
        ("", true),
        ("10.0.0.0/8,example", true),
        ("127.0.0.0/8", false),
        ("*", false),
    ]
    .into_iter()
    .enumerate()
    {
        let before = connections.load(Ordering::SeqCst);
        let mut config = registry.config(&directory.path().join(index.to_string()));
        config.http_proxy = Some(format!("http://user:pass@127.0.0.1:{port}"));
        config.no_proxy = Some(no_proxy.to_owned());
        Puller::build(config)
            .unwrap()
            .pull(&registry.reference("x"))
            .unwrap();
        assert_eq!(
            connections.load(Ordering::SeqCst) > before,
            used,
            "{no_proxy}"
        );
    }
    let head = head.lock().unwrap().to_ascii_lowercase();
    assert!(
        head.starts_with(&format!("connect 127.0.0.1:{}", registry.port)),
        "{head}"
    );
    assert!(
        head.contains("proxy-authorization: basic dxnlcjpwyxnz"),
        "{head}"
    );
}

#[test]
fn text_that_is_no_proxy_s_url_is_refused() {
    let registry = Registry::serving(Files::default());
    let directory = directory();
    let mut config = registry.config(directory.path());
    config.https_proxy = Some("ftp://x".into());
    assert!(Puller::build(config).is_err());
}
