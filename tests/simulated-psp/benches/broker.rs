//! What key release costs: an attestation by step, a resource, and many pods at once with the
//! broker's memory.
//!
//! Run it with `hack/bench-broker`. The broker is a process of its own; guests are the agent's own
//! client with a simulated processor, on the same machine, so that they take a part of it. The
//! peer is the same server's answer to `GET /healthz`, which decides nothing: TLS, HTTP and a
//! small body. Times depend on the machine; ratios do not much.

#![allow(
    clippy::unwrap_used,
    reason = "sources of tests, of which only a part is used; a bench may unwrap"
)]

#[path = "../../../policy/broker/tests/bed/mod.rs"]
mod bed;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use agent_evidence::{
    Obtained, ReportData,
    tee::{Tee, TeeError, TeeKind},
};
use agent_keys::{KeyProvider as _, ResourceUri};
use agent_keys_broker::{Addresses, Broker, Guest};
use agent_keys_protocol::TeeKey;
use tests_harness::{Measurement, median, rounded, write_measurements as write};
use tests_simulated_psp::serve::{ASK, VCEK, table_of};

use self::bed::{Bed, KEY, NAME, Owner, log, support::scene::Scene};

const HEALTH: &str = "GET /healthz";
/// The word by which this program serves instead.
const SERVE: &str = "serve";
const ATTESTATIONS: usize = 200;
const RESOURCES: usize = 2000;
const PODS: usize = 1000;
const STACK_BYTES: usize = 512 << 10;

/// What the figures should not exceed; where there is a peer, the ratio. Most of a judgement and of a
/// resource is the audit line, which must be on the disk first.
const JUDGE_MAX_MS: f64 = 40.0;
const RESOURCE_MAX: f64 = 40.0;
const RESOURCE_P99_MAX_MS: f64 = 25.0;
const POD_MAX_MS: f64 = 25.0;
const MEMORY_MAX_MIB: f64 = 192.0;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mut json = None;
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            (SERVE, Some(place)) => return serve(Path::new(&place)),
            ("--json", Some(file)) => json = Some(PathBuf::from(file)),
            // Cargo says it to every bench, last.
            ("--bench", None) => {}
            _ => {
                eprintln!("usage: hack/bench-broker [--json FILE]");
                return ExitCode::from(2);
            }
        }
    }
    let mut all = steps(&Served::start());
    all.extend(pods(&Served::start()));
    match write(&all, HEALTH, json.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The broker, until it is killed.
fn serve(place: &Path) -> ExitCode {
    let (directory, key) = (place.join("broker"), place.join("store.key"));
    let (broker, tls, listen) = policy_broker::broker::Broker::open(&directory, &key).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        policy_broker::server::serve(broker, tls, listener).await;
    });
    ExitCode::SUCCESS
}

/// A broker in a process of its own.
struct Served {
    child: Child,
    bed: Bed,
}

impl Served {
    fn start() -> Self {
        let owner = Owner::new("");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(SERVE)
            .arg(owner.place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        told.read_line(&mut address).unwrap();
        let url = format!("https://{}/kbs/v0", address.trim());
        Self {
            child,
            bed: Bed::of(owner, url),
        }
    }

    /// The most memory that it had, in MiB.
    fn memory_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A processor whose certificates are made already.
struct Processor {
    scene: Scene,
    table: Vec<u8>,
}

impl Processor {
    fn new() -> Self {
        let scene = Scene::genoa();
        let certificates = [(VCEK, scene.leaf.build()), (ASK, scene.issuer.build())];
        let table = table_of(&certificates).unwrap();
        Self { scene, table }
    }
}

impl Tee for Processor {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let mut report = self.scene.report;
        report[0x50..0x90].copy_from_slice(&report_data.0);
        self.scene.chip.sign(&mut report);
        Ok(Obtained {
            report: report.to_vec(),
            certificates: self.table.clone(),
        })
    }
}

fn guest(bed: &Bed, processor: Arc<Processor>) -> Broker {
    let url = bed.url.strip_suffix("/kbs/v0").unwrap();
    let certificate = &bed.certificate;
    let aa = format!("[token_configs.kbs]\nurl = \"{url}\"\ncert = \"\"\"{certificate}\"\"\"\n");
    Broker::new(
        Addresses::parse(&aa).unwrap().default.unwrap(),
        Guest {
            hardware: Some(processor),
            log: Box::new(|| Some(log(true, 1))),
            initdata: None,
        },
    )
}

fn uri() -> ResourceUri {
    ResourceUri::parse(&format!("kbs:///{NAME}")).unwrap()
}

/// Runs it and says how long it took, in milliseconds.
fn timed<T>(times: &mut Vec<f64>, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    times.push(millis(start.elapsed()));
    result
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that so many in a hundred do not exceed.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = values.len() * percent / 100;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Steps of an attestation over a connection that is open, and whole ones with connections of
/// their own.
fn steps(served: &Served) -> Vec<Measurement> {
    let bed = &served.bed;
    let health = bed.url.replace("/kbs/v0", "/healthz");
    let key = TeeKey::generate().unwrap();
    let [mut begin, mut attest, mut open, mut peer] = [const { Vec::new() }; 4];
    let mut cookie = String::new();
    for _ in 0..ATTESTATIONS {
        timed(&mut peer, || {
            let mut answer = bed.agent.get(&health).call().unwrap();
            answer.body_mut().read_to_string().unwrap()
        });
        let (session, challenge) = timed(&mut begin, || bed.begin());
        let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
        timed(&mut attest, || bed.attest(&session, &evidence).unwrap());
        cookie = session;
    }
    let (mut resource, mut sealed) = (Vec::new(), String::new());
    for _ in 0..RESOURCES {
        sealed = timed(&mut resource, || bed.get(NAME, ("Cookie", &cookie)).1);
    }
    for _ in 0..ATTESTATIONS {
        let secret = timed(&mut open, || key.open(sealed.as_bytes()).unwrap());
        assert_eq!(secret.expose(), KEY);
    }
    let processor = Arc::new(Processor::new());
    let mut whole = Vec::new();
    for _ in 0..ATTESTATIONS / 4 {
        let guest = guest(bed, Arc::clone(&processor));
        timed(&mut whole, || guest.fetch(&uri()).unwrap());
    }
    let peer = median(&mut peer);
    let p99 = percentile(&mut resource, 99);
    vec![
        beside("attestation.begin", median(&mut begin), peer, None),
        Measurement::alone(
            "attestation.judge",
            "ms",
            median(&mut attest),
            Some(JUDGE_MAX_MS),
        ),
        beside(
            "attestation.resource",
            median(&mut resource),
            peer,
            Some(RESOURCE_MAX),
        ),
        Measurement::alone("attestation.open", "ms", median(&mut open), None),
        Measurement::alone("attestation.whole", "ms", median(&mut whole), None),
        Measurement::alone("resource.p50", "ms", median(&mut resource), None),
        Measurement::alone("resource.p99", "ms", p99, Some(RESOURCE_P99_MAX_MS)),
    ]
}

/// As many pods as there are threads, which begin at once.
fn pods(served: &Served) -> Vec<Measurement> {
    let (bed, processor) = (&served.bed, Arc::new(Processor::new()));
    let ready = Barrier::new(PODS + 1);
    let idle = served.memory_mib();
    let (mut latencies, all) = thread::scope(|scope| {
        let pod = || {
            let guest = guest(bed, Arc::clone(&processor));
            ready.wait();
            let start = Instant::now();
            assert_eq!(guest.fetch(&uri()).unwrap().expose(), KEY);
            assert_eq!(guest.attestations(), 1);
            millis(start.elapsed())
        };
        let small = || thread::Builder::new().stack_size(STACK_BYTES);
        let threads: Vec<_> = (0..PODS)
            .map(|_| small().spawn_scoped(scope, pod).unwrap())
            .collect();
        ready.wait();
        let start = Instant::now();
        let latencies: Vec<f64> = threads.into_iter().map(|one| one.join().unwrap()).collect();
        (latencies, start.elapsed())
    });
    let count = f64::from(u32::try_from(PODS).unwrap());
    let name = |part: &str| format!("pods.{PODS}.{part}");
    vec![
        Measurement::alone(name("each"), "ms", millis(all) / count, Some(POD_MAX_MS)),
        Measurement::alone(
            name("sessions"),
            "per second",
            count / all.as_secs_f64(),
            None,
        ),
        Measurement::alone(name("p50"), "ms", median(&mut latencies), None),
        Measurement::alone(name("p99"), "ms", percentile(&mut latencies, 99), None),
        Measurement::alone("memory.idle", "MiB", idle, None),
        Measurement::alone(
            name("memory"),
            "MiB",
            served.memory_mib(),
            Some(MEMORY_MAX_MIB),
        ),
    ]
}

fn beside(name: &str, ours: f64, theirs: f64, budget: Option<f64>) -> Measurement {
    let ratio = ours / theirs;
    Measurement {
        peer: Some(HEALTH.to_owned()),
        peer_value: Some(rounded(theirs)),
        ratio: Some(rounded(ratio)),
        budget,
        within: budget.map(|budget| ratio <= budget),
        ..Measurement::alone(name, "ms", ours, None)
    }
}
