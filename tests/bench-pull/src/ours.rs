//! Our pull: the guest's library in a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use agent_image::{Config, Puller};
use agent_image_registry::{Reference, Registry};
use agent_keys::{Cached, OfflineKeys};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{
    images::Image,
    place::{REGISTRY, path},
    process::{self, Cost, kib},
};

/// One pull.
#[derive(Debug, Args)]
pub(crate) struct PullOptions {
    /// Store to pull into.
    store: PathBuf,
    /// Image.
    reference: String,
    /// Offline keys.
    keys: PathBuf,
}

/// What the pulling process knows of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    wall: f64,
    cpu: f64,
    mib: f64,
    requests: u64,
}

/// Pulls, and tells what it took as JSON.
pub(crate) fn pull(options: &PullOptions) -> Result<()> {
    let mut keys = OfflineKeys::default();
    keys.add(&fs::read(&options.keys)?)?;
    let mut config = Config::default();
    config.store.clone_from(&options.store);
    config.keys = Some(Arc::new(Cached::new(keys)));
    config.registries = vec![Registry {
        prefix: REGISTRY.to_owned(),
        insecure: true,
        ..Registry::default()
    }];
    let reference = Reference::parse(&options.reference)?;
    let begin = Instant::now();
    let puller = Puller::build(config)?;
    puller
        .pull(&reference)
        .map_err(|error| anyhow!(error.sentence()))?;
    let wall = begin.elapsed().as_secs_f64();
    let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    let status = fs::read_to_string("/proc/self/status")?;
    let told = Told {
        wall,
        cpu: seconds(cpu),
        mib: kib(&status, "VmHWM:") / 1024.0,
        requests: puller.requests(),
    };
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

/// A time in seconds, as a number.
pub(crate) fn seconds(time: nix::sys::time::TimeSpec) -> f64 {
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// A pull in a new process and store, on these CPUs; the number of its requests, too.
pub(crate) fn measure(image: &Image, cpus: &str) -> Result<(Cost, u64)> {
    let store = path("ours");
    let pull = command(&image.reference(), &store, &["taskset", "-c", cpus])?;
    let (_, output) = process::measure(pull, None, image.fills())?;
    fs::remove_dir_all(&store).context("removing our store")?;
    let told: Told = serde_json::from_str(&output).context("reading what our pull told")?;
    let cost = Cost {
        wall: told.wall,
        cpu: told.cpu,
        mib: told.mib,
    };
    Ok((cost, told.requests))
}

/// The system calls of a pull, counted by strace.
pub(crate) fn system_calls(reference: &str) -> Result<f64> {
    let (store, log) = (path("ours"), path("strace"));
    let log_text = log.to_string_lossy();
    let strace = ["strace", "-f", "-c", "-o", &log_text];
    process::run(command(reference, &store, &strace)?, None)?;
    fs::remove_dir_all(&store).context("removing our store")?;
    total(&fs::read_to_string(&log)?).context("strace counts calls")
}

/// The number of calls in the last line of `strace -c`: `100.00 1.23 4 56789 12 total`.
fn total(table: &str) -> Option<f64> {
    let line = table.lines().find(|line| line.ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn command(reference: &str, store: &Path, before: &[&str]) -> Result<Command> {
    let (first, rest) = before.split_first().context("a program")?;
    let mut command = Command::new(first);
    command
        .args(rest)
        .arg(std::env::current_exe()?)
        .arg("pull")
        .arg(store)
        .arg(reference)
        .arg(path("keys.json"));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_are_those_of_the_last_line() {
        let table = "% time seconds usecs/call calls errors syscall\n\
            60.0 0.1 3 40 2 openat\n------ -----\n100.00    0.160000           3     53821      1304 total\n";
        assert_eq!(total(table), Some(53821.0));
        assert_eq!(total("strace: nothing"), None);
    }
}
