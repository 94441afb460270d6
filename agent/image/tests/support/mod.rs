//! A small registry on the loopback device, and images to put into it.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod mounted;
pub mod refusals;
pub mod signed;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_image::{Config, Puller};
use agent_image_registry::{Digest, Reference, Registry as RegistryConfig};

pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A request as the registry saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// What to answer; `None` closes the connection.
pub type Answers = dyn Fn(&Seen, usize) -> Option<Answer> + Send + Sync;

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Announced instead of the body's own length.
    pub announced: Option<usize>,
    /// Nothing is announced: the body ends with the connection.
    pub unannounced: bool,
    /// Keep the connection open without sending any more.
    pub stall: bool,
}

pub fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.into(),
        announced: None,
        unannounced: false,
        stall: false,
    }
}

impl Answer {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// The registry; it stops when dropped.
pub struct Registry {
    pub port: u16,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Registry {
    /// Serves whatever `answers` says; the second argument counts earlier requests of the same path.
    pub fn start(answers: impl Fn(&Seen, usize) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (stopped, log): (_, Arc<Mutex<Vec<Seen>>>) = (stop.clone(), seen.clone());
        let answers: Arc<Answers> = Arc::new(answers);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (answers, log, stopped) = (answers.clone(), log.clone(), stopped.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &*answers, &log, &stopped));
            }
        });
        Self {
            port,
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// Serves images as they are.
    pub fn serving(files: Files) -> Self {
        Self::start(move |seen, _| Some(files.answer(&seen.path)))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("127.0.0.1:{}/{name}", self.port)).unwrap()
    }

    /// A puller that may talk to this registry in plain text.
    pub fn puller(&self, store: &std::path::Path) -> Puller {
        Puller::build(self.config(store)).unwrap()
    }

    pub fn config(&self, store: &std::path::Path) -> Config {
        let mut config = Config::default();
        config.store = store.to_owned();
        config.silence = Duration::from_secs(2);
        config.pull_deadline = Duration::from_secs(60);
        let prefix = format!("127.0.0.1:{}", self.port);
        config.registries = vec![RegistryConfig {
            prefix,
            insecure: true,
            ..RegistryConfig::default()
        }];
        config
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(stream: TcpStream, answers: &Answers, log: &Mutex<Vec<Seen>>, stopped: &AtomicBool) {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(seen) = read_request(&mut reader) {
        let earlier = {
            let mut log = log.lock().unwrap();
            let earlier = log.iter().filter(|other| other.path == seen.path).count();
            log.push(seen.clone());
            earlier
        };
        let Some(answer) = answers(&seen, earlier) else {
            return;
        };
        let length = answer.announced.unwrap_or(answer.body.len());
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        if !answer.unannounced {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        if writer
            .write_all(head.as_bytes())
            .and_then(|()| writer.write_all(&answer.body))
            .is_err()
        {
            return;
        }
        for _ in 0..200 {
            if !answer.stall || stopped.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if length != answer.body.len() || answer.unannounced {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => return Some(Seen { path, headers }),
        };
    }
}

/// Paths and what is there, with its content type.
#[derive(Debug, Clone, Default)]
pub struct Files(pub BTreeMap<String, (String, Vec<u8>)>);

impl Files {
    pub fn answer(&self, path: &str) -> Answer {
        match self.0.get(path.split('?').next().unwrap()) {
            Some((kind, body)) => answer(200, body.clone()).with("Content-Type", kind),
            None => answer(
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}"#,
            ),
        }
    }

    pub fn blob(&mut self, repository: &str, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes).to_string();
        self.0.insert(
            format!("/v2/{repository}/blobs/{digest}"),
            ("x".into(), bytes.to_vec()),
        );
        digest
    }

    pub fn manifest(&mut self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes).to_string();
        for version in [tag, &digest] {
            let path = format!("/v2/{repository}/manifests/{version}");
            self.0.insert(path, (kind.into(), bytes.to_vec()));
        }
        digest
    }

    /// Adds an image `x:latest`; returns its manifest's digest.
    pub fn image(&mut self, layers: &[Layer]) -> String {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| format!("\"{}\"", layer.diff_id.clone()))
            .collect();
        let config = config_json("amd64", &diff_ids.join(","));
        let config_digest = self.blob("x", config.as_bytes());
        let mut descriptors = Vec::new();
        for layer in layers {
            let digest = self.blob("x", &layer.stored);
            let digest = layer.stated_digest.clone().unwrap_or(digest);
            let size = layer.stated_size.unwrap_or(layer.stored.len());
            let media_type = &layer.media_type;
            descriptors.push(format!(
                r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#
            ));
        }
        let manifest = manifest_json(&config_digest, config.len(), &descriptors.join(","));
        self.manifest("x", "latest", OCI_MANIFEST, manifest.as_bytes())
    }
}

pub fn config_json(architecture: &str, diff_ids: &str) -> String {
    format!(
        r#"{{"os":"linux","architecture":"{architecture}","config":{{"Env":["A=b"],"Cmd":["/bin/sh"]}},
        "rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
    )
}

pub fn manifest_json(config: &str, config_size: usize, layers: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"{OCI_CONFIG}",
        "digest":"{config}","size":{config_size}}},"layers":[{layers}]}}"#
    )
}

/// A layer as the registry stores it.
#[derive(Debug, Clone)]
pub struct Layer {
    pub media_type: String,
    pub stored: Vec<u8>,
    pub diff_id: String,
    pub stated_digest: Option<String>,
    pub stated_size: Option<usize>,
}

pub fn plain(archive: &[u8]) -> Layer {
    let (diff_id, stored) = (Digest::sha256(archive).to_string(), archive.to_vec());
    Layer {
        media_type: OCI_LAYER.into(),
        stored,
        diff_id,
        stated_digest: None,
        stated_size: None,
    }
}

pub fn gzip(archive: &[u8]) -> Layer {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(archive).unwrap();
    Layer {
        media_type: format!("{OCI_LAYER}+gzip"),
        stored: encoder.finish().unwrap(),
        ..plain(archive)
    }
}

pub fn zstd(archive: &[u8]) -> Layer {
    let stored = zstd::encode_all(archive, 1).unwrap();
    Layer {
        media_type: format!("{OCI_LAYER}+zstd"),
        stored,
        ..plain(archive)
    }
}

/// Builds archives entry by entry.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn entry(mut self, name: &str, kind: u8, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        let mut put =
            |at: usize, text: String| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(100, format!("{mode:07o}"));
        put(108, format!("{:07o}", 0));
        put(116, format!("{:07o}", 0));
        put(124, format!("{:011o}", content.len()));
        put(136, format!("{:011o}", 1_000_000));
        put(157, link.to_owned());
        put(257, "ustar\0".to_owned() + "00");
        block[156] = kind;
        self.seal(&mut block, content);
        self
    }

    fn seal(&mut self, block: &mut [u8; 512], content: &[u8]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(block);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn device(self, name: &str, kind: u8, major: u32, minor: u32) -> Self {
        let mut tar = self.entry(name, kind, 0o640, "", b"");
        let at = tar.0.len() - 512;
        let mut block: [u8; 512] = tar.0[at..].try_into().unwrap();
        tar.0.truncate(at);
        block[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
        block[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        tar.seal(&mut block, b"");
        tar
    }

    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut body = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..)
                .find(|length| length.to_string().len() + rest == *length)
                .unwrap();
            body.push_str(&format!("{length} {key}={value}\n"));
        }
        self.entry("pax", b'x', 0o644, "", body.as_bytes())
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, b'0', 0o644, "", content)
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', 0o755, "", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', 0o777, target, b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', 0o644, target, b"")
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A store and a bundle in a directory that is removed at the end.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub fn read(path: impl AsRef<std::path::Path>) -> String {
    let mut text = String::new();
    std::fs::File::open(path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}
