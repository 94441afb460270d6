//! TLS: the registry's certificate must be signed by a root we know, for the name we asked.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
};

use agent_image::Puller;
use agent_image_registry::{Credentials, Reference};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::*;

fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes `ca.pem`, and `leaf.pem` with `leaf.key` for `localhost`.
fn certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        directory,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-root"),
    );
    openssl(
        directory,
        &format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=localhost"),
    );
    fs::write(
        directory.join("extensions"),
        "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    openssl(
        directory,
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 2 -extfile extensions",
    );
}

/// Terminates TLS before a registry; each connection carries what it will until it ends.
fn terminate(directory: &Path, registry: u16) -> u16 {
    let certificate = CertificateDer::from_pem_file(directory.join("leaf.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("leaf.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, stream) = (config.clone(), stream.unwrap());
            std::thread::spawn(move || relay(config, stream, registry));
        }
    });
    port
}

/// One request after another: read its head, pass it on, copy the answer by its length.
fn relay(config: Arc<rustls::ServerConfig>, stream: TcpStream, registry: u16) -> Option<()> {
    let mut client = rustls::StreamOwned::new(rustls::ServerConnection::new(config).ok()?, stream);
    let mut server = TcpStream::connect(("127.0.0.1", registry)).ok()?;
    loop {
        let request = head(&mut client)?;
        server.write_all(&request).ok()?;
        let answer = head(&mut server)?;
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let length: usize = text
            .split("content-length: ")
            .nth(1)?
            .split('\r')
            .next()?
            .parse()
            .ok()?;
        let mut body = vec![0; length];
        server.read_exact(&mut body).ok()?;
        client.write_all(&[answer, body].concat()).ok()?;
    }
}

fn head(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    Some(head)
}

#[test]
fn certificates_are_checked_against_roots_and_name() {
    let directory = directory();
    certificates(directory.path());
    let mut files = Files::default();
    files.image(&[gzip(&Tar::new().file("f", b"x").end())]);
    let registry = Registry::serving(files);
    let port = terminate(directory.path(), registry.port);
    let pull = |name: &str, roots: Vec<Vec<u8>>, store: &str| {
        let mut config = registry.config(&directory.path().join(store));
        config.registries.clear();
        config.root_certificates = roots;
        config.pull_deadline = std::time::Duration::from_secs(10);
        let puller = Puller::build(config).unwrap();
        let reference = Reference::parse(&format!("{name}:{port}/x")).unwrap();
        puller
            .pull(&reference)
            .map(|_| ())
            .map_err(|error| error.sentence())
    };
    let ours = fs::read(directory.path().join("ca.pem")).unwrap();
    assert_eq!(pull("localhost", vec![ours.clone()], "a"), Ok(()));
    let unnamed = pull("127.0.0.1", vec![ours], "b").unwrap_err();
    assert!(unnamed.contains("not valid for"), "{unnamed}");

    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    certificates(&other);
    let begin = std::time::Instant::now();
    let unknown = pull(
        "localhost",
        vec![fs::read(other.join("ca.pem")).unwrap()],
        "c",
    )
    .unwrap_err();
    assert!(unknown.contains("certificate"), "{unknown}");
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(3),
        "a wrong certificate is not asked again"
    );
}

#[test]
fn a_token_server_without_tls_gets_no_password() {
    let directory = directory();
    certificates(directory.path());
    let tokens = Registry::start(|_, _| Some(answer(200, r#"{"token":"T"}"#)));
    let realm = format!("Bearer realm=\"http://localhost:{}/token\"", tokens.port);
    let registry =
        Registry::start(move |_, _| Some(answer(401, "").with("WWW-Authenticate", &realm)));
    let port = terminate(directory.path(), registry.port);
    let mut config = registry.config(&directory.path().join("store"));
    config.registries.clear();
    config.root_certificates = vec![fs::read(directory.path().join("ca.pem")).unwrap()];
    config.pull_deadline = std::time::Duration::from_secs(10);
    let login = format!(r#"{{"auths":{{"localhost:{port}":{{"auth":"dTpw"}}}}}}"#);
    config.credentials = Credentials::parse(login.as_bytes()).unwrap();
    let puller = Puller::build(config).unwrap();
    let reference = Reference::parse(&format!("localhost:{port}/x")).unwrap();
    let refused = puller.pull(&reference).unwrap_err().sentence();
    assert!(refused.contains("is not protected by TLS"), "{refused}");
    assert!(tokens.seen().is_empty());
}
