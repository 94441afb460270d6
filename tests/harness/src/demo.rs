//! The demonstration: a pod from its YAML, on a node made for it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    bed::{Bed, BedOptions},
    containerd::Release,
    demo_keys::{prepare, show_the_promise},
    demo_policy::{add_policy, play_the_node},
    images::TestImages,
    node::Node,
    registry::REGISTRY,
    run::run_ok,
    tools::{Prefix, system},
};

const POD: &str = "/run/bed/pod.yaml";
const COPY_DEADLINE: Duration = Duration::from_secs(600);
/// Stands in the example for the bed's own test image.
const EXAMPLE_IMAGE: &str = "registry.example/busybox:1";

/// Which pod the demo runs, with which programs, and what stays afterwards.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// What `hack/build` made.
    pub prefix: PathBuf,
    /// The pod.
    pub pod: PathBuf,
    /// Leave the bed up.
    pub keep: bool,
    /// Show afterwards what the pod's policy denies; the pod is the example then.
    pub plays_node: bool,
}

/// Times of a pod's start, in milliseconds since the sandbox was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// The VM's processors run.
    pub vm_started_ms: Option<u64>,
    /// The agent answered.
    pub agent_ready_ms: Option<u64>,
    /// Network and namespaces of the pod are set up.
    pub sandbox_ready_ms: Option<u64>,
    /// Per container.
    pub containers: BTreeMap<String, ContainerTiming>,
}

/// Times of a container's start, in milliseconds since the sandbox was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerTiming {
    /// The container was asked for.
    pub create_ms: u64,
    /// The guest had pulled the image.
    pub image_pulled_ms: Option<u64>,
    /// The process ran.
    pub container_running_ms: Option<u64>,
}

/// Runs the demonstration; returns the exit code of the pod.
///
/// # Errors
/// When the bed cannot be made.
pub fn demo(options: &DemoOptions) -> Result<u8> {
    let yaml = fs::read_to_string(&options.pod)
        .with_context(|| format!("reading {}", options.pod.display()))?;
    let prefix = Prefix::open(&options.prefix)?;
    eprintln!("demo: making a node: registry, network, containerd, kata-cc");
    let containerd = Release::V2_1
        .provide()
        .or_else(|_| Release::V1_7.provide())?;
    let bed = Bed::up(BedOptions {
        containerd,
        prefix: Some(prefix.clone()),
        detached: options.keep,
    })?;
    if options.keep {
        explain(&bed, &prefix);
    }
    let yaml = localize(&bed, &yaml)?;
    bed.node().write(POD, &yaml)?;
    eprintln!("demo: kata-cc policy gen {}", options.pod.display());
    let owned = add_policy(&bed, &prefix, POD);
    match &owned {
        Ok(owned) => bed.node().write(POD, owned)?,
        Err(error) => eprintln!("demo: the pod runs without a policy: {error:#}"),
    }
    eprintln!(
        "demo: kata-cc run {} on containerd {}",
        options.pod.display(),
        bed.containerd().version
    );
    let watch = TimingWatch::start(bed.node().path("/run/kata-cc"));
    let mut command = bed.command(prefix.bin("kata-cc"));
    command.args(["run", "--handler", "kata-cc", POD]);
    let status = command.status().context("starting kata-cc")?;
    report(&bed, &watch.stop());
    if let (Ok(owned), true) = (&owned, options.plays_node && status.success()) {
        eprintln!("demo: making an agent that may ask a simulated processor");
        // It is built the first time, which takes half a minute; later there is nothing to wait for.
        let promise = thread::scope(|scope| -> Result<_> {
            let promise = scope.spawn(|| prepare(&bed, &prefix));
            play_the_node(&bed, &prefix, owned)?;
            let promise = promise.join();
            promise.unwrap_or_else(|_| bail!("preparing the promise panicked"))
        })?;
        show_the_promise(&promise)?;
    }
    if options.keep {
        bed.keep();
    }
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}

fn explain(bed: &Bed, prefix: &Prefix) {
    let own = std::env::current_exe().unwrap_or_else(|_| "bed".into());
    let enter = format!("{} enter {} --", own.display(), bed.node().first());
    eprintln!("demo: the node stays. Talk to it:");
    eprintln!(
        "  {enter} {} --namespace k8s.io tasks list",
        bed.containerd().program("ctr").display()
    );
    eprintln!(
        "  {enter} {} run /path/to/pod.yaml",
        prefix.bin("kata-cc").display()
    );
    eprintln!("  {enter} sh");
    eprintln!("its registry is {REGISTRY} with images busybox:1, configured:1. End it:");
    eprintln!("  kill {}", bed.node().keeper().unwrap_or_default());
}

/// Copies the pod's images into the bed, which reaches no other registry, and renames them.
fn localize(bed: &Bed, yaml: &str) -> Result<String> {
    let mut names = BTreeMap::new();
    let mut lines = Vec::new();
    for line in yaml.lines() {
        let Some((before, image)) = image_of(line) else {
            lines.push(line.to_owned());
            continue;
        };
        if !names.contains_key(image) {
            let name = copy(bed, image, names.len())?;
            names.insert(image.to_owned(), name);
        }
        lines.push(format!("{before}{}", names[image]));
    }
    Ok(lines.join("\n") + "\n")
}

/// `  - image: "name"  # note` → (`  - image: `, `name`)
fn image_of(line: &str) -> Option<(&str, &str)> {
    let key = line.trim_start().trim_start_matches("- ").trim_start();
    let value = key.strip_prefix("image:")?;
    let before = line.strip_suffix(value)?.len() + 1;
    let word = value.split_whitespace().next()?.trim_matches(['"', '\'']);
    let before = line.get(..before).filter(|_| value.starts_with(' '))?;
    (!word.is_empty()).then_some((before, word))
}

fn copy(bed: &Bed, image: &str, number: usize) -> Result<String> {
    if image.starts_with(REGISTRY) {
        return Ok(image.to_owned());
    }
    if image == EXAMPLE_IMAGE {
        return Ok(TestImages::BUSYBOX.reference());
    }
    let name = format!("demo-{number}:1");
    eprintln!("demo: copying {image} into the node's registry as {REGISTRY}/{name}");
    // Outside is the network, inside the registry: the copy goes by way of a directory.
    let between = tempfile::tempdir().context("making a directory for the image")?;
    let layout = format!("oci:{}:copy", between.path().display());
    let mut fetch = Command::new(system("skopeo")?);
    fetch.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        &format!("docker://{image}"),
        &layout,
    ]);
    run_ok(fetch, COPY_DEADLINE)?;
    bed.registry().push(bed.node(), &layout, &name, &[])?;
    Ok(format!("{REGISTRY}/{name}"))
}

fn report(bed: &Bed, timing: &Timing) {
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let guest = guest_kernel(bed.node()).unwrap_or_else(|error| format!("unknown: {error:#}"));
    eprintln!(
        "demo: kernel of the guest {guest}, of the host {}",
        host.trim()
    );
    let seconds = |ms: Option<u64>| {
        ms.map_or("?".to_owned(), |ms| {
            format!("{:.2} s", Duration::from_millis(ms).as_secs_f64())
        })
    };
    // The first one is the pause container, which pulls nothing.
    let last = timing
        .containers
        .values()
        .max_by_key(|one| one.create_ms)
        .cloned()
        .unwrap_or_default();
    eprintln!(
        "demo: VM started {}, agent ready {}, image pulled {}, container running {} after the pod was asked for",
        seconds(timing.vm_started_ms),
        seconds(timing.agent_ready_ms),
        seconds(last.image_pulled_ms),
        seconds(last.container_running_ms),
    );
}

/// The kernel's version, from the image that was booted.
fn guest_kernel(node: &Node) -> Result<String> {
    let config = node.read("/run/bed/kata-cc/configuration.toml")?;
    let line = config
        .lines()
        .find_map(|line| line.strip_prefix("guest_image = "));
    let image = PathBuf::from(
        line.context("the configuration names an image")?
            .trim_matches('"'),
    );
    let kernel = fs::read(image.join("vmlinuz")).context("reading the guest's kernel")?;
    bzimage_version(&kernel).context("the guest's kernel has no version")
}

/// The version string of a bzImage: Linux boot protocol, field `kernel_version` at 0x20e.
fn bzimage_version(kernel: &[u8]) -> Option<String> {
    let field: [u8; 2] = kernel.get(0x20e..0x210)?.try_into().ok()?;
    let start = usize::from(u16::from_le_bytes(field)) + 0x200;
    let text = kernel
        .get(start..)?
        .split(|&byte| byte == 0 || byte == b' ')
        .next()?;
    String::from_utf8(text.to_vec()).ok()
}

/// Keeps the newest `timing.json`, which goes away with its pod.
#[derive(Debug)]
pub struct TimingWatch {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Timing>,
}

impl TimingWatch {
    /// Watches the pods below `directory`.
    #[must_use]
    pub fn start(directory: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = thread::spawn(move || {
            let mut last = Timing::default();
            while !stopped.load(Ordering::Relaxed) {
                if let Some(timing) = newest(&directory) {
                    last = timing;
                }
                thread::sleep(Duration::from_millis(20));
            }
            last
        });
        Self { stop, reader }
    }

    /// Stops watching and returns the last times that were seen.
    #[must_use]
    pub fn stop(self) -> Timing {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.join().unwrap_or_default()
    }
}

fn newest(directory: &Path) -> Option<Timing> {
    let files = fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("timing.json"));
    let newest = files
        .filter_map(|file| Some((fs::metadata(&file).ok()?.modified().ok()?, file)))
        .max()?;
    serde_json::from_str(&fs::read_to_string(newest.1).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_in_yaml_lines_and_nothing_else_is() {
        assert_eq!(
            image_of("    - image: \"a/b:1\"  # c"),
            Some(("    - image: ", "a/b:1"))
        );
        assert_eq!(image_of("      image: a"), Some(("      image: ", "a")));
        assert_eq!(image_of("      # image: a"), None);
        assert_eq!(image_of("      imagePullPolicy: Always"), None);
        assert_eq!(image_of("      image:"), None);
    }
}
