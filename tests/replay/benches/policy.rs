//! What a decision costs under a Kata-style policy, by kind of request: in a process that is
//! bounded, as a guest decides, beside the same evaluation without one.
//!
//! Run it with `hack/bench-policy`. The policy is the one of `tests/kata_policies`, the requests
//! are recorded ones. Both ways are interleaved, request by request, in one process and its
//! child. Times depend on the machine; ratios do not much.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "sources of tests, of which only a part is used; a bench may unwrap"
)]

#[path = "../tests/kata_policies/requests.rs"]
mod requests;
#[path = "../../../shim/src/spec.rs"]
mod transformation;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use agent_evaluator::{Bounded, EVALUATOR_ARGUMENT};
use agent_protocol::rpc::{agent as wire, oci, types};
use policy_engine::rego::{Allowed, Interpreter, Policy};
use protobuf::MessageDyn;
use requests::{policy_text, request};
use tests_harness::{Measurement, median, write_measurements as write};

const RELEASE: &str = "2.1";
/// For each kind; a decision that changes the state has the policy prepared anew.
const TIMES: usize = 200;
const CONSTANT_TIMES: usize = 10_000;
const LOADS: usize = 5;
/// A constant verdict, in microseconds.
const CONSTANT_MAX: f64 = 1.0;
const IN_PROCESS: &str = "without a process of its own";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mut json = None;
    while let Some(word) = words.next() {
        match word.as_str() {
            EVALUATOR_ARGUMENT => return agent_evaluator::run(),
            "--json" => json = words.next().map(PathBuf::from),
            // Cargo says it to every bench.
            "--bench" => {}
            _ => {
                eprintln!("usage: hack/bench-policy [--json FILE]");
                return ExitCode::from(2);
            }
        }
    }
    let mut all = loads();
    all.extend(decisions());
    match write(&all, IN_PROCESS, json.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn line(name: &str, unit: &'static str, value: f64) -> Measurement {
    Measurement {
        name: name.to_owned(),
        value: (value * 100.0).round() / 100.0,
        unit,
        peer: None,
        peer_value: None,
        ratio: None,
        budget: None,
        within: None,
        unjudged: None,
    }
}

fn beside(name: &str, unit: &'static str, (ours, theirs): (f64, f64)) -> Measurement {
    Measurement {
        peer: Some(IN_PROCESS.to_owned()),
        peer_value: Some((theirs * 100.0).round() / 100.0),
        ratio: Some((ours / theirs * 100.0).round() / 100.0),
        ..line(name, unit, ours)
    }
}

fn loads() -> Vec<Measurement> {
    let text = policy_text(RELEASE, &[]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        let start = Instant::now();
        Policy::load(&text, Bounded::load).unwrap();
        ours.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        Policy::load(&text, Interpreter::load).unwrap();
        theirs.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let size = f64::from(u32::try_from(text.len()).unwrap());
    vec![
        line("kata.text", "bytes", size),
        beside("kata.load", "ms", (median(&mut ours), median(&mut theirs))),
    ]
}

/// A kind of request, its rule, a message of it, and whether what it changes is kept.
type Kind = (&'static str, &'static str, Box<dyn MessageDyn>);

fn kinds() -> Vec<Kind> {
    let main = request(RELEASE, "main");
    let id = main.container_id.clone();
    let process = oci::Process {
        Args: ["sh", "-c", "cat /tmp/started"].map(str::to_owned).to_vec(),
        Cwd: "/".to_owned(),
        User: Some(oci::User {
            AdditionalGids: vec![0],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let copied = format!("/run/kata-containers/shared/containers/{id}-0123456789abcdef-hosts");
    vec![
        (
            "exec",
            "ExecProcessRequest",
            Box::new(wire::ExecProcessRequest {
                container_id: id.clone(),
                process: Some(process).into(),
                ..Default::default()
            }),
        ),
        (
            "copy",
            "CopyFileRequest",
            Box::new(wire::CopyFileRequest {
                path: copied,
                file_mode: 0o100_644,
                data: vec![7; 1 << 20],
                ..Default::default()
            }),
        ),
        (
            "interface",
            "UpdateInterfaceRequest",
            Box::new(wire::UpdateInterfaceRequest {
                interface: Some(types::Interface {
                    name: "eth0".to_owned(),
                    hwAddr: "02:00:00:00:00:01".to_owned(),
                    ..Default::default()
                })
                .into(),
                ..Default::default()
            }),
        ),
        (
            "sandbox",
            "CreateSandboxRequest",
            Box::new(wire::CreateSandboxRequest {
                storages: vec![shim_volumes::shm_storage()],
                ..Default::default()
            }),
        ),
    ]
}

fn decisions() -> Vec<Measurement> {
    let text = policy_text(RELEASE, &[]);
    let bounded = Policy::load(&text, Bounded::load).unwrap();
    let plain = Policy::load(&text, Interpreter::load).unwrap();
    let main = request(RELEASE, "main");
    // Undone each time: the state changes twice, and is never the same as before.
    let mut all = compared(
        "create",
        (&bounded, &plain),
        ("CreateContainerRequest", &main),
        TIMES,
    );
    for policy in [&bounded, &plain] {
        policy
            .decide("CreateContainerRequest", &main)
            .map(Allowed::commit)
            .unwrap();
    }
    for (name, rule, message) in kinds() {
        all.extend(compared(name, (&bounded, &plain), (rule, &*message), TIMES));
    }
    all.extend(constant(&bounded));
    all
}

fn timed(policy: &Policy, (rule, message): (&'static str, &dyn MessageDyn)) -> f64 {
    let start = Instant::now();
    let allowed = policy.decide(rule, message);
    let time = micros(start.elapsed());
    drop(allowed.unwrap());
    time
}

fn compared(
    name: &str,
    (ours, theirs): (&Policy, &Policy),
    asked: (&'static str, &dyn MessageDyn),
    times: usize,
) -> Vec<Measurement> {
    let pairs: Vec<(f64, f64)> = (0..times)
        .map(|_| (timed(ours, asked), timed(theirs, asked)))
        .collect();
    let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    [("p50", 0.5), ("p99", 0.99)]
        .map(|(what, part)| {
            let values = (percentile(&ours, part), percentile(&theirs, part));
            beside(&format!("kata.{name}.{what}"), "µs", values)
        })
        .into()
}

fn constant(policy: &Policy) -> Vec<Measurement> {
    let message = wire::StartContainerRequest::default();
    let times: Vec<f64> = (0..CONSTANT_TIMES)
        .map(|_| timed(policy, ("StartContainerRequest", &message)))
        .collect();
    let p50 = percentile(&times, 0.5);
    let mut p50 = line("kata.constant.p50", "µs", p50);
    p50.budget = Some(CONSTANT_MAX);
    p50.within = Some(p50.value <= CONSTANT_MAX);
    vec![
        p50,
        line("kata.constant.p99", "µs", percentile(&times, 0.99)),
    ]
}

fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    let at = (last as f64 * part).round() as usize;
    sorted[at.min(last)]
}
