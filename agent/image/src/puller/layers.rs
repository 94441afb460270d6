//! All layers of an image at once, each settled in its turn.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use agent_image_registry::{Blob, Deadline, Digest, Resolved};
use agent_image_signatures::Accepted;
use agent_image_unpacking::{
    Claim, ClaimError, Expected, Found, Key, Layer, LayerError, LayerReport, Meter, Notes,
    Progress, Staging, StoreError, chain_ids, open_root, parse_media_type, settle, unpack,
};

use super::{LayerFailure, PullFailure, Puller};

impl Puller {
    /// Fetches and unpacks the layers of an image that the signature policy accepts.
    pub(super) fn layers(
        &self,
        accepted: &Accepted,
        deadline: &Deadline,
        progress: &Progress,
    ) -> Result<Vec<(Layer, LayerReport)>, PullFailure> {
        let resolved = accepted.resolved();
        let count = resolved.manifest.layers.len();
        let chain = chain_ids(&resolved.config.diff_ids);
        let pull = LayerPull {
            puller: self,
            resolved,
            chain: &chain,
            deadline,
            progress,
            next: AtomicUsize::new(0),
        };
        let (results, inbox) = channel();
        thread::scope(|scope| {
            start_all(self.parallel.min(count), deadline, || {
                let results = results.clone();
                let thread = thread::Builder::new().name("layer".to_owned());
                thread.spawn_scoped(scope, || pull.work(results)).map(drop)
            })?;
            drop(results);
            let mut waiting = BTreeMap::new();
            let mut finished: Vec<Layer> = Vec::with_capacity(count);
            let mut reports = Vec::with_capacity(count);
            let mut failures = Failures::default();
            for (position, result) in inbox {
                match result {
                    Ok(unpacked) => drop(waiting.insert(position, unpacked)),
                    Err(error) => failures.add(position, error, deadline),
                }
                while let Some(next) = waiting.remove(&finished.len()) {
                    match pull.finish(next, finished.len(), &finished) {
                        Ok(both) => push(both, &mut finished, &mut reports),
                        Err(error) => failures.add(finished.len(), error, deadline),
                    }
                }
            }
            match failures.first {
                Some((position, error)) => Err(pull.failed(position, error)),
                None => Ok(finished.into_iter().zip(reports).collect()),
            }
        })
    }
}

/// Starts so many threads. If one cannot start, those that run are told to stop: without
/// it the pull has failed, whatever they do.
fn start_all(
    count: usize,
    deadline: &Deadline,
    mut start: impl FnMut() -> io::Result<()>,
) -> Result<(), PullFailure> {
    let started = (0..count).try_for_each(|_| start());
    started.map_err(|error| {
        deadline.cancel();
        PullFailure::Thread(error)
    })
}

fn push<A, B>((one, other): (A, B), ones: &mut Vec<A>, others: &mut Vec<B>) {
    ones.push(one);
    others.push(other);
}

/// The failure that tells most: the first one that is no echo of another.
#[derive(Default)]
struct Failures {
    first: Option<(usize, LayerFailure)>,
}

impl Failures {
    fn add(&mut self, position: usize, error: LayerFailure, deadline: &Deadline) {
        deadline.cancel();
        if self
            .first
            .as_ref()
            .is_none_or(|(_, first)| first.is_echo() && !error.is_echo())
        {
            self.first = Some((position, error));
        }
    }
}

/// The layers of one image on their way.
struct LayerPull<'a> {
    puller: &'a Puller,
    resolved: &'a Resolved,
    chain: &'a [Digest],
    deadline: &'a Deadline,
    progress: &'a Progress,
    next: AtomicUsize,
}

/// A layer that is in the store, or verified and ready for it.
enum Unpacked<'a> {
    Finished(Layer, LayerReport),
    Staged {
        claim: Claim<'a>,
        staging: Staging,
        notes: Notes,
        report: LayerReport,
    },
}

type LayerResult<'a> = (usize, Result<Unpacked<'a>, LayerFailure>);

impl<'a> LayerPull<'a> {
    /// Takes layers from the bottom up until there are none left or one fails.
    ///
    /// Upwards matters: whoever waits for another pull's layer holds only claims on
    /// layers below it, so that two pulls can never wait for each other.
    fn work(&self, results: Sender<LayerResult<'a>>) {
        loop {
            let position = self.next.fetch_add(1, Ordering::Relaxed);
            if position >= self.chain.len() {
                return;
            }
            // The receiver lives until all senders are gone.
            let result = self.deadline.check().map_err(LayerFailure::Wait);
            let _ = results.send((position, result.and_then(|_| self.unpack(position))));
        }
    }

    fn unpack(&self, position: usize) -> Result<Unpacked<'a>, LayerFailure> {
        let store = &self.puller.store;
        let descriptor = &self.resolved.manifest.layers[position];
        let diff_id = &self.resolved.config.diff_ids[position];
        let media_type = &descriptor.media_type;
        let form = parse_media_type(media_type)
            .ok_or_else(|| LayerError::MediaType(media_type.chars().take(200).collect()))?;
        let mut report = LayerReport {
            digest: descriptor.digest.clone(),
            media_type: media_type.clone(),
            encrypted: form.encrypted,
            stored_bytes: descriptor.size,
            unpacked_bytes: None,
            duration: Duration::ZERO,
        };
        let claim = match store.find_or_claim(diff_id, &self.chain[position], self.deadline) {
            Ok(Found::Finished(layer)) => {
                self.progress.receive(descriptor.size);
                return Ok(Unpacked::Finished(layer, report));
            }
            Ok(Found::Claimed(claim)) => claim,
            Err(ClaimError::Store(error)) => return Err(error.into()),
            Err(ClaimError::Over(over)) => return Err(LayerFailure::Wait(over)),
        };
        let staging = store.stage()?;
        let root = open_root(&staging.root()).map_err(|source| StoreError::System {
            step: "open",
            path: staging.root(),
            source: source.into(),
        })?;
        let (client, source) = (&self.puller.client, &self.resolved.source);
        let blob = Blob::new(
            client,
            source,
            &descriptor.digest,
            descriptor.size,
            self.deadline,
        );
        let meter = Meter::new(self.progress);
        let expected = Expected {
            form,
            digest: &descriptor.digest,
            diff_id,
            annotations: &descriptor.annotations,
            keys: self.puller.keys.as_deref(),
            private_keys: &self.puller.private_keys,
            deadline: self.deadline,
            unpacked_max: self.puller.layer_max_bytes,
            meter: &meter,
        };
        let begin = Instant::now();
        let notes = unpack(blob, &expected, root)?;
        report.duration = begin.elapsed();
        report.unpacked_bytes = Some(meter.unpacked());
        tracing::debug!(
            layer = %descriptor.digest, bytes = descriptor.size,
            milliseconds = report.duration.as_millis(), "unpacked layer"
        );
        Ok(Unpacked::Staged {
            claim,
            staging,
            notes,
            report,
        })
    }

    /// Puts a layer into its place; all layers below it are in theirs.
    fn finish(
        &self,
        unpacked: Unpacked<'a>,
        position: usize,
        below: &[Layer],
    ) -> Result<(Layer, LayerReport), LayerFailure> {
        let (claim, staging, notes, report) = match unpacked {
            Unpacked::Finished(layer, report) => {
                self.progress.finish();
                return Ok((layer, report));
            }
            Unpacked::Staged {
                claim,
                staging,
                notes,
                report,
            } => (claim, staging, notes, report),
        };
        let key = if notes.are_settled() {
            Key::of_diff(&self.resolved.config.diff_ids[position])
        } else {
            settle(&staging.root(), &notes, below, self.deadline)?;
            Key::of_chain(&self.chain[position])
        };
        let layer = self.puller.store.publish(staging, &key, &notes)?;
        drop(claim);
        self.progress.finish();
        Ok((layer, report))
    }

    fn failed(&self, position: usize, cause: LayerFailure) -> PullFailure {
        let layers = &self.resolved.manifest.layers;
        PullFailure::Layer {
            number: position + 1,
            count: layers.len(),
            digest: layers[position].digest.clone(),
            cause: Box::new(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_image_registry::Over;

    use super::*;

    #[test]
    fn a_thread_that_cannot_start_stops_the_others_and_is_the_cause() {
        let deadline = Deadline::within(Duration::from_secs(60));
        let mut started = 0;
        let result = start_all(4, &deadline, || {
            started += 1;
            match started {
                2 => Err(io::Error::from(io::ErrorKind::WouldBlock)),
                _ => Ok(()),
            }
        });
        assert!(matches!(result, Err(PullFailure::Thread(_))));
        assert_eq!(started, 2, "no further thread is started");
        assert!(matches!(deadline.check(), Err(Over::Cancelled)));
    }
}
