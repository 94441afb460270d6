//! A broker on a socket with TLS, and guests with reports in AMD's format under a root of the
//! tests.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::{fs, path::PathBuf, sync::Arc};

use agent_evidence::{
    HostData, Sha256Digest,
    log::{ContainerDigests, ContainerEntry, Entry, MeasurementLog, PolicyEntry, PolicySource},
};
use agent_keys_protocol::{
    Attestation, Challenge, Details, Request, ResourceName, RuntimeData, TeeEvidence, TeeKey,
    Token, log_evidence, report_data,
};
use policy_appraisal::snp::{JsonEvidence, Revocation, UnverifiedReport};
use policy_broker::{broker::Broker, identity, server};
use tokio::{net::TcpListener, runtime::Runtime};
use ureq::{
    Agent,
    config::Config,
    http::{Response, StatusCode, header::SET_COOKIE},
    tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
};

use self::support::scene::Scene;

/// Reports and certificates: what the tests of the verifier use too.
#[path = "../../../appraisal/tests/support"]
pub mod support {
    #![allow(dead_code, unreachable_pub, reason = "test code of another crate")]
    pub mod authority;
    pub mod der;
    pub mod scene;

    pub fn pinned_time() -> policy_appraisal::Timestamp {
        "2025-06-01T00:00:00Z".parse().unwrap()
    }
}

pub const KEY: &[u8] = b"the marker of a secret resource.";
pub const NAME: &str = "default/key/web";
pub const REPORT_DATA: usize = 0x50;
pub const MEASUREMENT: usize = 0x90;
pub const HOST_DATA: usize = 0xC0;
pub const BOUND: HostData = HostData([0xD2; 32]);

/// What an owner has: a broker's directory with one resource, its key, and a guest to accept.
pub struct Owner {
    pub place: tempfile::TempDir,
    pub scene: Scene,
    /// Of the broker, PEM.
    pub certificate: String,
}

/// A broker that serves, its owner's files, and a guest that it accepts.
pub struct Bed {
    pub place: tempfile::TempDir,
    pub scene: Scene,
    pub agent: Agent,
    pub url: String,
    /// Of the broker, PEM.
    pub certificate: String,
    _runtime: Option<Runtime>,
}

impl Owner {
    /// With these lines more in `broker.toml`.
    pub fn new(more: &str) -> Self {
        Self::at(tempfile::tempdir().unwrap(), more)
    }

    /// In a place that is there.
    pub fn at(place: tempfile::TempDir, more: &str) -> Self {
        let (directory, key) = (place.path().join("broker"), place.path().join("store.key"));
        let pem = identity::create(&directory, &key, "127.0.0.1").unwrap();
        let mut scene = Scene::genoa();
        scene.crl = None;
        scene.references.revocation = Revocation::Optional;
        let references = serde_json::to_string(&scene.references).unwrap();
        fs::write(directory.join("references.json"), references).unwrap();
        let root = support::authority::root(scene.product).build();
        fs::write(directory.join("roots.der"), root).unwrap();
        let digest = Sha256Digest([2; 32]);
        let web = format!(
            r#"{{"containers": [{{"image": "sha256:web", "digests": {{"process": "{digest}",
            "environment": "{digest}", "mounts": "{digest}", "rights": "{digest}",
            "settings": "{digest}"}}}}]}}"#
        );
        fs::write(directory.join("web.json"), web).unwrap();
        let narrow = "package policy\n\nallow if data[\"resource-path\"][1] == \"other\"\n";
        fs::write(directory.join("resource.rego"), narrow).unwrap();
        let own = format!(
            "listen = \"127.0.0.1:0\"\nreferences = \"references.json\"\nroots = \"roots.der\"\n\
             host_data = [\"{BOUND}\"]\n{more}"
        );
        fs::write(directory.join("broker.toml"), own).unwrap();
        let store = identity::open_store(&directory, &key).unwrap();
        store.put(&ResourceName::parse(NAME).unwrap(), KEY).unwrap();
        Self {
            certificate: pem,
            place,
            scene,
        }
    }

    pub fn directory(&self) -> PathBuf {
        self.place.path().join("broker")
    }

    pub fn store_key(&self) -> PathBuf {
        self.place.path().join("store.key")
    }
}

impl Bed {
    pub fn new(more: &str) -> Self {
        let owner = Owner::new(more);
        let (broker, tls, listen) = Broker::open(&owner.directory(), &owner.store_key()).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind(listen)).unwrap();
        let url = format!("https://{}/kbs/v0", listener.local_addr().unwrap());
        runtime.spawn(server::serve(broker, tls, listener));
        Self {
            _runtime: Some(runtime),
            ..Self::of(owner, url)
        }
    }

    /// A broker that is served elsewhere.
    pub fn of(owner: Owner, url: String) -> Self {
        Self {
            agent: agent(&owner.certificate),
            certificate: owner.certificate,
            place: owner.place,
            scene: owner.scene,
            url,
            _runtime: None,
        }
    }

    pub fn directory(&self) -> PathBuf {
        self.place.path().join("broker")
    }

    pub fn post(&self, path: &str, cookie: &str, body: &str) -> Response<ureq::Body> {
        let request = self.agent.post(format!("{}/{path}", self.url));
        request.header("Cookie", cookie).send(body).unwrap()
    }

    pub fn begin(&self) -> (String, Challenge) {
        let request = serde_json::to_string(&Request::new("snp")).unwrap();
        let mut answer = self.post("auth", "", &request);
        assert_eq!(answer.status(), StatusCode::OK);
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let text = answer.body_mut().read_to_string().unwrap();
        (cookie, serde_json::from_str(&text).unwrap())
    }

    /// What a genuine guest with this key and log sends.
    pub fn evidence(&self, nonce: &str, key: &TeeKey, log: &MeasurementLog) -> Attestation {
        let additional = log_evidence(log.as_bytes());
        let bound = report_data(nonce, key.public(), &additional);
        self.evidence_over(nonce, key, &additional, &bound)
    }

    pub fn evidence_over(
        &self,
        nonce: &str,
        key: &TeeKey,
        additional: &str,
        bound: &[u8; 64],
    ) -> Attestation {
        let mut report = self.scene.report;
        report[REPORT_DATA..REPORT_DATA + 64].copy_from_slice(bound);
        self.scene.chip.sign(&mut report);
        let evidence = JsonEvidence {
            report: UnverifiedReport::parse(&report).unwrap(),
            endorsements: self.scene.endorsements(),
        };
        Attestation {
            init_data: None,
            runtime_data: RuntimeData {
                nonce: nonce.to_owned(),
                tee_pubkey: key.public().clone(),
            },
            tee_evidence: TeeEvidence {
                primary_evidence: serde_json::from_str(&evidence.to_json()).unwrap(),
                additional_evidence: additional.to_owned(),
            },
        }
    }

    pub fn attest(&self, cookie: &str, attestation: &Attestation) -> Result<String, Details> {
        let body = serde_json::to_string(attestation).unwrap();
        let mut answer = self.post("attest", cookie, &body);
        let text = answer.body_mut().read_to_string().unwrap();
        if answer.status() == StatusCode::OK {
            let token: Token = serde_json::from_str(&text).unwrap();
            return Ok(token.token);
        }
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{text}");
        Err(serde_json::from_str(&text).unwrap())
    }

    /// A session that attested with this log; its cookie, its token, its key.
    pub fn attested(&self, log: &MeasurementLog) -> (String, String, TeeKey) {
        let key = TeeKey::generate().unwrap();
        let (cookie, challenge) = self.begin();
        let evidence = self.evidence(&challenge.nonce, &key, log);
        let token = self.attest(&cookie, &evidence).unwrap();
        (cookie, token, key)
    }

    pub fn get(&self, name: &str, header: (&str, &str)) -> (StatusCode, String) {
        let request = self.agent.get(format!("{}/resource/{name}", self.url));
        let mut answer = request.header(header.0, header.1).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status(), text)
    }

    pub fn refusal(&self, attestation: &Attestation, cookie: &str) -> String {
        let details = self.attest(cookie, attestation).unwrap_err();
        assert_eq!(details.variant(), "AttestationError");
        details.detail
    }
}

pub fn agent(pem: &str) -> Agent {
    let certificates = parse_pem(pem.as_bytes()).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(certificates.collect())))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let config = Config::builder()
        .http_status_as_error(false)
        .tls_config(tls);
    config.build().new_agent()
}

pub fn log(is_bound: bool, version: u64) -> MeasurementLog {
    let mut log = MeasurementLog::new();
    let policy = Entry::from(PolicyEntry {
        source: PolicySource::Initdata,
        digest: Sha256Digest([1; 32]),
        bound: is_bound,
        version: Some(version),
    });
    log.append(policy.event().unwrap()).unwrap();
    log
}

pub fn with_container(image: &str) -> MeasurementLog {
    let mut log = log(true, 1);
    let digest = Sha256Digest([2; 32]);
    let container = Entry::from(ContainerEntry {
        container: "c1".to_owned(),
        image: Some(image.to_owned()),
        digests: ContainerDigests {
            process: digest,
            environment: digest,
            mounts: digest,
            rights: digest,
            settings: digest,
        },
        marks: Vec::new(),
        chosen: Vec::new(),
        count: 1,
    });
    log.append(container.event().unwrap()).unwrap();
    log
}
