//! The bed that pods are played on.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use tests_harness::{Bed, BedOptions, Handler, Prefix, Release};

use crate::{Outcome, disk::Disk, image, play};

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

    /// The node.
    #[must_use]
    pub fn bed(&self) -> &Bed {
        &self.0
    }

    /// Plays each of `pods`, `at_once` of them at a time.
    ///
    /// # Errors
    /// As [`play`].
    pub fn play(
        &self,
        handler: Handler,
        pods: &[&'static str],
        workers: usize,
    ) -> Result<BTreeMap<&'static str, Outcome>> {
        at_once(workers, pods, |pod| play(&self.0, handler, pod))
    }
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
                let before = std::time::Instant::now();
                let outcome = work(pod)?;
                eprintln!("{pod} took {:?}", before.elapsed());
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.insert(pod, outcome);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results
            .map(|result| result.expect("a worker does not panic"))
            .collect::<Result<()>>()
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}
