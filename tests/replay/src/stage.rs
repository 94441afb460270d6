//! The bed that pods are played on.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use tests_harness::{Bed, BedOptions, Handler, Prefix, Release};

use crate::{Differing, Must, Outcome, differing, disk::Disk, image, play, verdict};

/// What came of each pod.
pub type Played = BTreeMap<&'static str, Outcome>;

/// A node as the recorded one was.
#[derive(Debug)]
pub struct Stage(Bed);

impl Stage {
    /// Makes the node; `None`, and a line that says why, where it cannot be made.
    ///
    /// # Errors
    /// When something is broken.
    pub fn set(release: Release) -> Result<Option<Self>> {
        let skip = |why: &str| {
            // Not captured by the test program, so that a skip is seen.
            let _ = writeln!(std::io::stderr(), "skipped on {release:?}: {why}");
        };
        if !nix::unistd::geteuid().is_root() {
            skip("a bed needs root");
            return Ok(None);
        }
        let containerd = match release.provide() {
            Err(error) if release == Release::Newest => {
                skip(&format!("{error:#}"));
                return Ok(None);
            }
            other => other?,
        };
        let bed = Bed::up(BedOptions {
            containerd,
            prefix: Some(Prefix::of_build()?),
            detached: false,
        })?;
        Disk::prepare(bed.node())?;
        image::push(&bed)?;
        Ok(Some(Self(bed)))
    }

    /// The node's bed.
    #[must_use]
    pub fn bed(&self) -> &Bed {
        &self.0
    }

    /// Plays each of `pods`, `at_once` of them at a time.
    ///
    /// # Errors
    /// As [`play`].
    pub fn play(&self, handler: Handler, pods: &[&'static str], workers: usize) -> Result<Played> {
        at_once(workers, pods, |pod| play(&self.0, handler, pod))
    }
}

/// The pods whose outcome containerd's own part can decide: how it mounts what it was told, how
/// it connects streams, what it makes of an end.
const OF_THE_RELEASE: [&str; 3] = ["emptydirs", "ends", "stdin"];

/// Plays the pods that a release can change, on that release.
///
/// # Errors
/// When something differs that the table does not have.
pub fn play_what_depends_on(release: Release) -> Result<()> {
    let Some(stage) = Stage::set(release)? else {
        return Ok(());
    };
    let plain = stage.play(Handler::Runc, &OF_THE_RELEASE, OF_THE_RELEASE.len())?;
    let ours = stage.play(Handler::KataCc, &OF_THE_RELEASE, 2)?;
    let must = match release {
        Release::V1_7 => Must::OfOldest,
        _ => Must::Nothing,
    };
    judge(&plain, &ours, must)
}

/// Holds what differs against the table, and the table against what must differ.
///
/// # Errors
/// What is wrong, a line each.
pub fn judge(plain: &Played, ours: &Played, must: Must) -> Result<()> {
    let mut different = Vec::new();
    for (pod, outcome) in plain {
        let ours = ours.get(pod).context("both were played")?;
        different.extend(differing(pod, &outcome.facts, &ours.facts));
    }
    if let Some(path) = std::env::var_os("REPLAY_DIFFERENCES") {
        let line = |one: &Differing| format!("{} | {} | {}\n", one.name, one.plain, one.ours);
        std::fs::write(path, different.iter().map(line).collect::<String>())?;
    }
    let verdict = verdict(&different, must);
    for fault in &verdict.faults {
        // Not captured by the test program, so that they are seen.
        writeln!(std::io::stderr(), "known fault: {fault}")?;
    }
    ensure!(verdict.wrong.is_empty(), "{}", verdict.wrong.join("\n"));
    Ok(())
}

/// Does `work` for each of `pods`, `workers` of them at a time.
///
/// # Errors
/// The first that failed.
///
/// # Panics
/// When `work` does.
pub fn at_once<T: Send>(
    workers: usize,
    pods: &[&'static str],
    work: impl Fn(&'static str) -> Result<T> + Sync,
) -> Result<BTreeMap<&'static str, T>> {
    let (left, done) = (Mutex::new(pods.to_vec()), Mutex::new(BTreeMap::new()));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            while let Some(pod) = next() {
                let outcome = work(pod)?;
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.insert(pod, outcome);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        results
            .into_iter()
            .try_for_each(|result| result.expect("a worker does not panic"))
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}
