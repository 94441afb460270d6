//! Many pods, one after another and several at a time, some of them killed: what grows?
//!
//! A node lives for months. Whatever a pod leaves behind there, be it one descriptor of the
//! snapshotter, adds up. So the counts of all that a pod takes on the node must be after many
//! pods what they were after a few; memory may move by what an allocator keeps.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{
    bed::{Bed, BedOptions, Handler, wait_until},
    containerd::Release,
    leftovers::Leftovers,
    node::Process,
    pod::{ContainerRequest, Pod, PodRequest},
    tools::Prefix,
};

/// Pods that run beside each other in the second half.
const AT_ONCE: usize = 4;
/// Pods that are not counted: they make what all pods share.
const FIRST: usize = 2;
const SETTLED: Duration = Duration::from_secs(60);
const REMOVED: Duration = Duration::from_secs(120);
/// What the memory of a program that lasts may move by.
const MEMORY_SLACK_KIB: u64 = 16 * 1024;
/// What the node's disk may move by: logs, and the metadata of containerd.
const DISK_SLACK_KIB: u64 = 4 * 1024;
/// Programs of the node that outlive a pod.
const LASTING: [(&str, &str); 2] = [
    ("containerd", "containerd"),
    ("snapshotter", "kata-cc-snapshotter"),
];
/// Parts of a pod that a node may lose.
const PARTS: [&str; 2] = ["containerd-shim-kata-cc-v2", "qemu-system-x86_64"];
/// Where pods leave files on the disk of a node.
const DISK: [&str; 3] = ["/var/lib/kata-cc", "/run/kata-cc", "/run/containerd"];

/// What to run.
#[derive(Debug, Clone)]
pub struct SoakOptions {
    /// What `hack/build` made.
    pub prefix: PathBuf,
    /// How many pods.
    pub pods: usize,
    /// Decides which parts are killed, and when.
    pub seed: u64,
}

/// Amounts by name: `processes`, `containerd.descriptors`, …
type Amounts = BTreeMap<String, u64>;

/// Runs the pods and prints what grew.
///
/// # Errors
/// When a pod does not run, or something grew.
pub fn soak(options: &SoakOptions) -> Result<()> {
    ensure!(options.pods > 0, "nothing grows with no pods");
    let bed = Bed::up(BedOptions {
        containerd: Release::V2_1
            .provide()
            .or_else(|_| Release::V1_7.provide())?,
        prefix: Some(Prefix::open(&options.prefix)?),
        detached: false,
    })?;
    let mut chance = Chance(options.seed);
    for fate in [Fate::Lives, Fate::Loses(PARTS[0])]
        .into_iter()
        .cycle()
        .take(FIRST)
    {
        live(&bed, fate)?;
    }
    let before = Leftovers::baseline(&bed, Handler::KataCc)?;
    let begin = amounts(&bed)?;
    let start = Instant::now();
    let apart = options.pods.div_ceil(2);
    for number in 0..apart {
        eprintln!("soak: pod {} of {}", number + 1, options.pods);
        live(&bed, chance.fate(number))?;
    }
    let mut number = apart;
    while number < options.pods {
        let count = AT_ONCE.min(options.pods - number);
        eprintln!(
            "soak: pods {} to {} of {}",
            number + 1,
            number + count,
            options.pods
        );
        let fates: Vec<_> = (number..number + count)
            .map(|one| chance.fate(one))
            .collect();
        together(&bed, &fates)?;
        number += count;
    }
    before.wait_until_gone(bed.node(), SETTLED)?;
    let end = amounts(&bed)?;
    let pods = options.pods;
    println!(
        "{pods} pods in {:.0} s, seed {}",
        start.elapsed().as_secs_f64(),
        options.seed
    );
    judge(&begin, &end)
}

/// What happens to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It runs to its end.
    Lives,
    /// Its container ends, and another takes its place.
    Restarts,
    /// This program of it is killed.
    Loses(&'static str),
}

/// Numbers that only the seed decides (SplitMix64, Steele and others 2014).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let one = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let two = (one ^ (one >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        two ^ (two >> 31)
    }

    /// Every third pod restarts, every fifth loses a part.
    fn fate(&mut self, number: usize) -> Fate {
        let drawn = self.next();
        match number {
            number if number % 5 == 4 => Fate::Loses(if drawn.is_multiple_of(2) {
                PARTS[0]
            } else {
                PARTS[1]
            }),
            number if number % 3 == 2 => Fate::Restarts,
            _ => Fate::Lives,
        }
    }
}

fn together(bed: &Bed, fates: &[Fate]) -> Result<()> {
    thread::scope(|scope| {
        let pods: Vec<_> = fates
            .iter()
            .map(|fate| scope.spawn(move || live(bed, *fate)))
            .collect();
        pods.into_iter()
            .try_for_each(|pod| pod.join().map_err(|_| anyhow!("a pod's thread panicked"))?)
    })
}

/// The life of one pod.
fn live(bed: &Bed, fate: Fate) -> Result<()> {
    let pod = Pod::run(bed, Handler::KataCc, PodRequest::default())?;
    let container = pod.start(ContainerRequest::shell("echo here; exec sleep 1000"))?;
    container.wait_for_output("here")?;
    match fate {
        Fate::Lives => {}
        Fate::Restarts => {
            container.stop(0)?;
            container.remove()?;
            let again = pod.complete(ContainerRequest::shell("echo again"))?;
            ensure!(again.stdout == "again\n", "{again:?}");
        }
        Fate::Loses(program) => {
            bed.node().kill(&part(bed, pod.id(), program)?)?;
            container.wait()?;
        }
    }
    remove(bed, pod)
}

fn part(bed: &Bed, pod: &str, program: &str) -> Result<Process> {
    let mut all = bed.node().processes()?.into_iter();
    let found =
        all.find(|one| one.is(program) && one.arguments.iter().any(|word| word.contains(pod)));
    found.with_context(|| format!("the pod has no {program}"))
}

/// As kubelet does, which asks again: containerd may not have noticed yet that a shim is gone.
fn remove(bed: &Bed, pod: Pod<'_>) -> Result<()> {
    let mut cri = bed.cri()?;
    wait_until("the pod can be removed", REMOVED, || {
        Ok(cri.remove_sandbox(pod.id()).is_ok())
    })?;
    pod.remove()
}

fn amounts(bed: &Bed) -> Result<Amounts> {
    let node = bed.node();
    let mut all = Amounts::new();
    let processes = node.processes()?;
    for (name, program) in LASTING {
        let process = processes.iter().find(|one| one.is(program));
        let process = process.with_context(|| format!("no {program} runs"))?;
        let proc = node.path(format!("/proc/{}", process.pid));
        all.insert(format!("{name}.descriptors"), entries(&proc.join("fd"))?);
        all.insert(format!("{name}.threads"), entries(&proc.join("task"))?);
        all.insert(format!("{name}.memory_kib"), resident_kib(&proc)?);
    }
    let lasting = processes.iter().filter(|one| !one.is("ip"));
    all.insert("processes".to_owned(), count(lasting));
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", node.first()))?;
    all.insert("mounts".to_owned(), count(mounts.lines()));
    let links = node.run("ip", &["-brief", "link"])?;
    all.insert("interfaces".to_owned(), count(links.lines()));
    let groups = below(&node.path("/sys/fs/cgroup"));
    all.insert("cgroups".to_owned(), groups.directories);
    let disk: Vec<_> = DISK.map(|root| below(&node.path(root))).into();
    all.insert("files".to_owned(), disk.iter().map(|one| one.files).sum());
    all.insert("disk_kib".to_owned(), disk.iter().map(|one| one.kib).sum());
    Ok(all)
}

fn count<T>(all: impl Iterator<Item = T>) -> u64 {
    all.fold(0, |count, _| count + 1)
}

fn entries(directory: &Path) -> Result<u64> {
    let all =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    Ok(count(all))
}

fn resident_kib(proc: &Path) -> Result<u64> {
    let status = fs::read_to_string(proc.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("a process has a VmRSS")?.parse()?)
}

/// What lies below a directory.
#[derive(Debug, Default)]
struct Below {
    directories: u64,
    files: u64,
    kib: u64,
}

/// What vanishes meanwhile is not there, and other file systems are not below.
fn below(root: &Path) -> Below {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Below::default();
    let Ok(device) = fs::metadata(root).map(|root| root.dev()) else {
        return found;
    };
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else {
                continue;
            };
            if about.is_dir() && about.dev() == device {
                found.directories += 1;
                pending.push(entry.path());
            } else if about.is_file() {
                found.files += 1;
                found.kib += about.blocks() / 2;
            }
        }
    }
    found
}

/// By how much an amount may grow.
fn slack(name: &str) -> u64 {
    match name {
        _ if name.ends_with("memory_kib") => MEMORY_SLACK_KIB,
        "disk_kib" => DISK_SLACK_KIB,
        // Go and Tokio start threads as they like, and keep descriptors of connections open.
        _ if name.ends_with("threads") => 8,
        _ if name.ends_with("descriptors") => 4,
        _ => 0,
    }
}

fn judge(begin: &Amounts, end: &Amounts) -> Result<()> {
    println!("{:<28}{:>10}{:>10}{:>10}", "", "before", "after", "growth");
    let mut grown = Vec::new();
    for (name, before) in begin {
        let after = end.get(name).copied().unwrap_or_default();
        let growth = after.saturating_sub(*before);
        println!("{name:<28}{before:>10}{after:>10}{growth:>10}");
        if growth > slack(name) {
            grown.push(name.as_str());
        }
    }
    if !grown.is_empty() {
        bail!("grew with the number of pods: {}", grown.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_of_anything_countable_is_a_growth_and_memory_may_move() {
        let with = |name: &str, value| Amounts::from([(name.to_owned(), value)]);
        for name in ["mounts", "interfaces", "cgroups", "files", "processes"] {
            assert!(judge(&with(name, 3), &with(name, 3)).is_ok(), "{name}");
            assert!(judge(&with(name, 3), &with(name, 4)).is_err(), "{name}");
        }
        let memory = |kib| with("containerd.memory_kib", kib);
        assert!(judge(&memory(50_000), &memory(60_000)).is_ok());
        assert!(judge(&memory(50_000), &memory(90_000)).is_err());
    }

    #[test]
    fn a_seed_decides_everything() {
        let fates = |seed| {
            let mut chance = Chance(seed);
            (0..100)
                .map(|number| chance.fate(number))
                .collect::<Vec<_>>()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
        let lost = |part| fates(1).contains(&Fate::Loses(part));
        assert!(PARTS.into_iter().all(lost));
    }
}
