//! A server that plays a key broker, with whatever behaviour a test gives it, behind TLS.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use agent_evidence::{
    Obtained, ReportData,
    log::MeasurementLog,
    snp::REPORT_LEN,
    tee::{Tee, TeeError, TeeKind},
};
use agent_keys_broker::{Addresses, Broker, Guest};
use agent_keys_protocol::{Attestation, Request, TeePublicKey, VERSION, report_data};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};

/// Signs nothing: these servers do not look at signatures.
pub(crate) struct Unsigned;

impl Tee for Unsigned {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn obtain(&self, data: &ReportData) -> Result<Obtained, TeeError> {
        let mut report = vec![0; REPORT_LEN];
        report[0x50..0x90].copy_from_slice(&data.0);
        Ok(Obtained {
            report,
            certificates: Vec::new(),
        })
    }
}

/// What a server answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

pub(crate) fn error(status: u16, kind: &str) -> Answer {
    let kind = format!("https://github.com/confidential-containers/kbs/errors/{kind}");
    answer(status, json!({"type": kind, "detail": "x"}).to_string())
}

/// One request: path, headers in lower case, body.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What it knows of its guests.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) paths: Vec<String>,
    pub(crate) key: Option<TeePublicKey>,
    pub(crate) additional: Vec<String>,
}

impl Seen {
    pub(crate) fn count(&self, path: &str) -> usize {
        self.paths.iter().filter(|one| one.contains(path)).count()
    }
}

pub(crate) const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A broker as upstream's is, that releases everything.
pub(crate) fn genuine(asked: &Asked, seen: &mut Seen) -> Answer {
    match asked.path.as_str() {
        "/kbs/v0/auth" => {
            let request: Request = serde_json::from_slice(&asked.body).unwrap();
            assert_eq!(
                (request.version.as_str(), request.tee.as_str()),
                (VERSION, "snp")
            );
            let mut answer = answer(200, json!({"nonce": NONCE, "extra-params": ""}).to_string());
            answer.headers.push(
                "Set-Cookie: kbs-session-id=abc; Expires=Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
            );
            answer
        }
        "/kbs/v0/attest" => {
            assert_eq!(asked.headers["cookie"], "kbs-session-id=abc");
            let sent: Attestation = serde_json::from_slice(&asked.body).unwrap();
            let additional = &sent.tee_evidence.additional_evidence;
            let data = &sent.runtime_data;
            let expected = report_data(&data.nonce, &data.tee_pubkey, additional);
            let report = &sent.tee_evidence.primary_evidence["attestation_report"];
            assert_eq!(report["report_data"], json!(expected.to_vec()));
            assert_eq!(sent.init_data.unwrap().body, "version = \"0.1.0\"\n");
            seen.additional.push(additional.clone());
            seen.key = Some(data.tee_pubkey.clone());
            answer(200, r#"{"token":"e30.eyJpYXQiOjEsImV4cCI6MzAxfQ.c2ln"}"#)
        }
        path => {
            assert_eq!(asked.headers["cookie"], "kbs-session-id=abc");
            answer(
                200,
                sealed(seen, path.rsplit('/').next().unwrap()).to_string(),
            )
        }
    }
}

pub(crate) fn sealed(seen: &Seen, secret: &str) -> Value {
    let sealed = seen.key.as_ref().unwrap().seal(secret.as_bytes()).unwrap();
    serde_json::to_value(sealed).unwrap()
}

type Behaviour = dyn Fn(&Asked, &mut Seen) -> Answer + Send + Sync;

pub(crate) struct Server {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) certificate: String,
    pub(crate) port: u16,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(
        behaviour: impl Fn(&Asked, &mut Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Arc::new(tls(directory.path()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&shared));
                let (stream, behaviour) = (stream.unwrap(), Arc::clone(&behaviour));
                std::thread::spawn(move || converse(config, stream, &seen, &*behaviour));
            }
        });
        Self {
            seen,
            certificate: fs::read_to_string(directory.path().join("tls.pem")).unwrap(),
            port,
            _directory: directory,
        }
    }

    pub(crate) fn broker(&self) -> Broker {
        broker(
            &format!("https://127.0.0.1:{}", self.port),
            &self.certificate,
        )
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen.lock().unwrap().count(path)
    }
}

pub(crate) fn broker(url: &str, certificate: &str) -> Broker {
    let toml = format!("[token_configs.kbs]\nurl = \"{url}\"\ncert = '''{certificate}'''\n");
    let address = Addresses::parse(&toml).unwrap().default.unwrap();
    Broker::new(
        address,
        Guest {
            hardware: Some(Arc::new(Unsigned)),
            log: Box::new(|| Some(MeasurementLog::new())),
            initdata: Some("version = \"0.1.0\"\n".to_owned()),
        },
    )
}

fn tls(directory: &Path) -> ServerConfig {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                     -keyout tls.key -out tls.pem -subj /CN=broker \
                     -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success());
    let certificate = CertificateDer::from_pem_file(directory.join("tls.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

fn converse(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    seen: &Mutex<Seen>,
    behaviour: &Behaviour,
) -> Option<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    loop {
        let asked = ask(&mut stream)?;
        let answer = {
            let mut seen = seen.lock().ok()?;
            seen.paths.push(asked.path.clone());
            behaviour(&asked, &mut seen)
        };
        if answer.status == 0 {
            // A server that stalls: silent until the client goes.
            let _ = stream.read(&mut [0]);
            return None;
        }
        let mut head = format!("HTTP/1.1 {} x\r\n", answer.status);
        for header in &answer.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if !head.contains("Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(b"\r\n").ok()?;
        stream.write_all(&answer.body).ok()?;
        while head.contains("Content-Length: 10000000000") {
            stream.write_all(&[b' '; 65536]).ok()?;
        }
        stream.flush().ok()?;
    }
}

fn ask(stream: &mut impl Read) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(Some(0), |n| n.parse().ok());
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).ok()?;
    Some(Asked {
        path,
        headers,
        body,
    })
}
