//! What a pod costs, ours against runc on the same node.
//!
//! Repetitions are interleaved, so that a busy moment of the machine hits both.
//! Ratios are ours ÷ the peer's, lower is better, and the median over repetitions.
//! Budgets that suppose KVM are reported but not judged where the VM is emulated.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bed::{Bed, BedOptions, Handler},
    bench_ahead::Ahead,
    bench_generation,
    containerd::Release,
    demo::Timing,
    measurement::{Measurement, median, rounded, write},
    own_memory::{OWN_MIB, own_mib},
    pod::{Container, ContainerRequest, Pod, PodRequest},
    tools::{Prefix, built},
};

const MIB: f64 = 1_048_576.0;
const EXECS: usize = 15;
const OUTPUT_MIB: u64 = 64;

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// What `hack/build` made.
    pub prefix: PathBuf,
    /// Where to write the measurements.
    pub json: Option<PathBuf>,
    /// Pods of each kind.
    pub repeat: usize,
}

type Sample = BTreeMap<&'static str, f64>;

/// Name, unit, budget, and whether the budget supposes KVM.
const QUANTITIES: [(&str, &str, Option<f64>, bool); 16] = [
    ("cold_start.vm_started", "ms", None, true),
    ("cold_start.agent_ready", "ms", None, true),
    ("cold_start.sandbox_ready", "ms", None, true),
    ("cold_start.image_pulled", "ms", None, true),
    ("cold_start.container_running", "ms", None, true),
    ("cold_start.total", "ms", None, true),
    ("cold_start.after_init", "ms", None, true),
    ("stop.pod", "ms", None, false),
    ("exec.latency", "ms", None, true),
    ("output.64_mib", "ms", None, true),
    ("memory.shim_pss", "MiB", Some(8.0), false),
    ("memory.vm_pss", "MiB", None, false),
    // With the shim, what the shipped RuntimeClass counts beside the guest's memory.
    ("memory.vm_own", "MiB", Some(OWN_MIB - 8.0), false),
    ("memory.agent_rss", "MiB", Some(16.0), false),
    ("size.agent", "MiB", Some(20.0), false),
    ("size.guest_image", "MiB", Some(32.0), false),
];

/// Measures and prints; writes JSON where asked to.
///
/// # Errors
/// When a pod does not run.
pub fn bench(options: &BenchOptions) -> Result<()> {
    ensure!(options.repeat > 0, "nothing is measured with --repeat 0");
    let prefix = Prefix::open(&options.prefix)?;
    let containerd = Release::V2_1
        .provide()
        .or_else(|_| Release::V1_7.provide())?;
    let bed = Bed::up(BedOptions {
        containerd,
        prefix: Some(prefix.clone()),
        detached: false,
    })?;
    // One of each, unmeasured: images reach the node, the bridge is made.
    for handler in [Handler::Runc, Handler::KataCc] {
        sample(&bed, handler)?;
    }
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for round in 1..=options.repeat {
        eprintln!("bench: round {round} of {}", options.repeat);
        peers.push(sample(&bed, Handler::Runc)?);
        ours.push(sample(&bed, Handler::KataCc)?);
    }
    let sizes = sizes(&prefix)?;
    ours.iter_mut().for_each(|one| one.extend(&sizes));
    let mut measurements = summarize(&ours, &peers, "runc", has_kvm());
    let ahead = Ahead::prepare(&bed, &prefix)?;
    ahead.sample()?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for round in 1..=options.repeat {
        eprintln!(
            "bench: images pulled ahead, round {round} of {}",
            options.repeat
        );
        let [without, with] = ahead.sample()?;
        peers.push(without);
        ours.push(with);
    }
    measurements.extend(summarize(&ours, &peers, "no policy", has_kvm()));
    measurements.push(bench_generation::measure(&bed, &prefix, options.repeat)?);
    write(&measurements, "runc", options.json.as_deref())?;
    Ok(())
}

/// Would `accelerator = "auto"` choose KVM? As the shim does: the processor must have the flag.
fn has_kvm() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtualizes = flags
        .split_whitespace()
        .any(|flag| matches!(flag, "svm" | "vmx"));
    virtualizes && Path::new("/dev/kvm").exists()
}

/// Measures the life of one pod.
fn sample(bed: &Bed, handler: Handler) -> Result<Sample> {
    let mut sample = Sample::new();
    let start = Instant::now();
    let pod = Pod::run(bed, handler, PodRequest::default())?;
    sample.insert("cold_start.sandbox_ready", milliseconds(start));
    let container = pod.start(ContainerRequest::busybox(&["sleep", "1000"]))?;
    sample.insert("cold_start.total", milliseconds(start));
    if handler == Handler::KataCc {
        stages(bed, &pod, &container, &mut sample)?;
    }
    memory(bed, &pod, handler, &mut sample)?;
    sample.insert("exec.latency", exec_latency(&container)?);
    sample.insert("output.64_mib", output(bed, &container)?);
    if handler == Handler::KataCc {
        sample.insert("memory.agent_rss", agent_memory(bed, &pod)?);
    }
    let start = Instant::now();
    pod.remove()?;
    sample.insert("stop.pod", milliseconds(start));
    Ok(sample)
}

fn stages(bed: &Bed, pod: &Pod<'_>, container: &Container<'_>, sample: &mut Sample) -> Result<()> {
    let text = bed
        .node()
        .read(format!("/run/kata-cc/{}/timing.json", pod.id()))?;
    let timing: Timing = serde_json::from_str(&text).context("reading the shim's timing")?;
    let of = timing.containers.get(container.id());
    let steps = [
        ("cold_start.vm_started", timing.vm_started_ms),
        ("cold_start.agent_ready", timing.agent_ready_ms),
        (
            "cold_start.image_pulled",
            of.and_then(|one| one.image_pulled_ms),
        ),
        (
            "cold_start.container_running",
            of.and_then(|one| one.container_running_ms),
        ),
    ];
    for (name, value) in steps {
        let value = value.with_context(|| format!("the shim's timing has no {name}"))?;
        sample.insert(name, value as f64);
    }
    Ok(())
}

fn memory(bed: &Bed, pod: &Pod<'_>, handler: Handler, sample: &mut Sample) -> Result<()> {
    let (shim, vm) = match handler {
        Handler::Runc => ("containerd-shim-runc-v2", None),
        Handler::KataCc => ("containerd-shim-kata-cc-v2", Some("qemu-system-x86_64")),
    };
    for process in bed.node().processes()? {
        let of_pod = process
            .arguments
            .iter()
            .any(|argument| argument.contains(pod.id()));
        let name = match () {
            () if of_pod && process.is(shim) => "memory.shim_pss",
            () if of_pod && vm.is_some_and(|vm| process.is(vm)) => "memory.vm_pss",
            () => continue,
        };
        let map = bed
            .node()
            .read(format!("/proc/{}/smaps_rollup", process.pid))?;
        sample.insert(
            name,
            kib_field(&map, "Pss:").context("a process has a PSS")? / 1024.0,
        );
        if name == "memory.vm_pss" {
            let maps = bed.node().read(format!("/proc/{}/smaps", process.pid))?;
            sample.insert("memory.vm_own", own_mib(&maps));
        }
    }
    Ok(())
}

/// The agent says on the console how much it holds when a container has started.
fn agent_memory(bed: &Bed, pod: &Pod<'_>) -> Result<f64> {
    let console = bed
        .node()
        .read(format!("/run/kata-cc/{}/vm/console.log", pod.id()))?;
    let kib = resident_kib(&console).context("the agent tells its memory on the console")?;
    Ok(kib / 1024.0)
}

/// The last `resident_kib=1234`.
fn resident_kib(console: &str) -> Option<f64> {
    let (_, after) = console.rsplit_once("resident_kib=")?;
    after
        .split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// `Pss:     1234 kB`
fn kib_field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn exec_latency(container: &Container<'_>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..EXECS {
        let start = Instant::now();
        let answer = container.exec(&["true"])?;
        ensure!(answer.exit_code == 0, "`true` failed");
        times.push(milliseconds(start));
    }
    Ok(median(&mut times))
}

/// The process ends when all was read: `ctr` throws away what is still in its pipe when a process
/// has ended, whatever the runtime.
fn output(bed: &Bed, container: &Container<'_>) -> Result<f64> {
    let bytes = OUTPUT_MIB << 20;
    let script = format!("head -c {bytes} /dev/zero; cat");
    let mut command = bed.ctr_command();
    command
        .args(["tasks", "exec", "--exec-id", "output", container.id()])
        .args(["/bin/sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().context("a pipe")?;
    let copied = std::io::copy(&mut stdout.take(bytes), &mut std::io::sink())?;
    let taken = milliseconds(start);
    drop(child.stdin.take());
    let status = child.wait()?;
    ensure!(
        status.success() && copied == bytes,
        "{copied} bytes of output"
    );
    Ok(taken)
}

fn sizes(prefix: &Prefix) -> Result<Sample> {
    let size = |path: PathBuf| -> Result<f64> {
        let length =
            fs::metadata(&path).with_context(|| format!("measuring {}", path.display()))?;
        Ok(length.len() as f64 / MIB)
    };
    let image = prefix.path().join("guest/default");
    let guest = size(image.join("vmlinuz"))? + size(image.join("initrd.img"))?;
    Ok(Sample::from([
        ("size.agent", size(built("kata-agent")?)?),
        ("size.guest_image", guest),
    ]))
}

fn summarize(ours: &[Sample], peers: &[Sample], peer: &str, kvm: bool) -> Vec<Measurement> {
    let mut all = Vec::new();
    for (name, unit, budget, needs_kvm) in QUANTITIES {
        let values = |samples: &[Sample]| -> Vec<f64> {
            samples
                .iter()
                .filter_map(|one| one.get(name).copied())
                .collect()
        };
        let (mut mine, mut theirs) = (values(ours), values(peers));
        if mine.is_empty() {
            continue;
        }
        let mut ratios: Vec<_> = mine.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        let has_peer = !theirs.is_empty();
        let value = median(&mut mine);
        let judged = budget.filter(|_| kvm || !needs_kvm);
        all.push(Measurement {
            name: name.to_owned(),
            value: rounded(value),
            unit,
            peer: has_peer.then(|| peer.to_owned()),
            peer_value: has_peer.then(|| rounded(median(&mut theirs))),
            ratio: has_peer.then(|| rounded(median(&mut ratios))),
            budget,
            within: judged.map(|budget| value <= budget),
            unjudged: (budget.is_some() && judged.is_none())
                .then_some("it needs hardware virtualisation"),
        });
    }
    all
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_memory_is_the_last_it_told() {
        let console = "x resident_kib=100\ny container started resident_kib=8300 z\r\n";
        assert_eq!(resident_kib(console), Some(8300.0));
        assert_eq!(resident_kib("nothing"), None);
    }

    #[test]
    fn ratios_are_the_median_of_repetitions_and_missing_peers_are_null() {
        let ours = [10.0, 30.0, 20.0]
            .map(|value| Sample::from([("exec.latency", value), ("size.agent", 21.0)]));
        let peers = [5.0, 5.0, 20.0].map(|value| Sample::from([("exec.latency", value)]));
        let result = summarize(&ours, &peers, "runc", false);
        let [latency, size] = result.as_slice() else {
            panic!("{result:?}");
        };
        assert_eq!(
            (latency.value, latency.peer_value, latency.ratio),
            (20.0, Some(5.0), Some(2.0))
        );
        assert_eq!(
            (size.peer.as_deref(), size.ratio, size.within),
            (None, None, Some(false))
        );
    }
}
