//! All layers of an image at once, each settled in its turn.
//!
//! A layer that an image has twice is fetched once. Where it is right whatever lies below
//! it, the second place takes it from the store; otherwise from a copy that was made before
//! the first place settled it.

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
    Claim, ClaimError, Expected, Form, Found, Key, Layer, LayerError, LayerReport, Meter, Notes,
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
            places: places(&resolved.config.diff_ids),
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
            let mut copies = BTreeMap::new();
            let mut finished: Vec<Layer> = Vec::with_capacity(count);
            let mut reports = Vec::with_capacity(count);
            let mut failures = Failures::default();
            for (position, result) in inbox {
                match result {
                    Ok(unpacked) => drop(waiting.insert(position, unpacked)),
                    Err(error) => failures.add(position, error, deadline),
                }
                while let Some(next) = waiting.remove(&finished.len()) {
                    match pull.finish(next, &finished, &mut copies) {
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

/// Where each layer is in the image, bottom first.
fn places(diff_ids: &[Digest]) -> BTreeMap<&Digest, Vec<usize>> {
    let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (position, diff_id) in diff_ids.iter().enumerate() {
        places.entry(diff_id).or_default().push(position);
    }
    places
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
    places: BTreeMap<&'a Digest, Vec<usize>>,
    deadline: &'a Deadline,
    progress: &'a Progress,
    next: AtomicUsize,
}

/// A layer that is in the store, or verified and ready for it.
enum Unpacked<'a> {
    Finished(Layer, LayerReport),
    Staged(Staged<'a>),
}

/// A layer that is verified, and not in the store yet.
struct Staged<'a> {
    claim: Claim<'a>,
    staging: Staging,
    notes: Notes,
    report: LayerReport,
}

/// Copies of layers for their next places.
type Copies<'a> = BTreeMap<usize, Staged<'a>>;

/// Nothing of a repeated layer: its turn comes when its lower place is finished.
type LayerResult<'a> = (usize, Result<Option<Unpacked<'a>>, LayerFailure>);

impl<'a> LayerPull<'a> {
    /// Takes layers from the bottom up until there are none left or one fails.
    ///
    /// Upwards matters: whoever waits for another pull's layer waits for nothing above it,
    /// so that two pulls can never wait for each other.
    fn work(&self, results: Sender<LayerResult<'a>>) {
        loop {
            let position = self.next.fetch_add(1, Ordering::Relaxed);
            if position >= self.chain.len() {
                return;
            }
            let result = match self.deadline.check() {
                Err(over) => Err(LayerFailure::Wait(over)),
                Ok(_) if self.is_repeated(position) => Ok(None),
                Ok(_) => self.unpack(position).map(Some),
            };
            // The receiver lives until all senders are gone.
            let _ = results.send((position, result));
        }
    }

    /// The places of the layer that is at this one.
    fn places(&self, position: usize) -> &[usize] {
        let diff_id = &self.resolved.config.diff_ids[position];
        self.places.get(diff_id).map_or(&[], Vec::as_slice)
    }

    fn is_repeated(&self, position: usize) -> bool {
        self.places(position).first() != Some(&position)
    }

    fn form(&self, position: usize) -> Result<Form, LayerError> {
        let media_type = &self.resolved.manifest.layers[position].media_type;
        parse_media_type(media_type)
            .ok_or_else(|| LayerError::MediaType(media_type.chars().take(200).collect()))
    }

    /// What is known about a layer before anything is done with it.
    fn report(&self, position: usize, form: Form) -> LayerReport {
        let descriptor = &self.resolved.manifest.layers[position];
        LayerReport {
            digest: descriptor.digest.clone(),
            media_type: descriptor.media_type.clone(),
            encrypted: form.encrypted,
            stored_bytes: descriptor.size,
            unpacked_bytes: None,
            duration: Duration::ZERO,
        }
    }

    fn unpack(&self, position: usize) -> Result<Unpacked<'a>, LayerFailure> {
        let store = &self.puller.store;
        let descriptor = &self.resolved.manifest.layers[position];
        let diff_id = &self.resolved.config.diff_ids[position];
        let form = self.form(position)?;
        let mut report = self.report(position, form);
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
        Ok(Unpacked::Staged(Staged {
            claim,
            staging,
            notes,
            report,
        }))
    }

    /// Puts a layer into its place; all layers below it are in theirs.
    fn finish(
        &self,
        unpacked: Option<Unpacked<'a>>,
        below: &[Layer],
        copies: &mut Copies<'a>,
    ) -> Result<(Layer, LayerReport), LayerFailure> {
        let position = below.len();
        let unpacked = match (unpacked, copies.remove(&position)) {
            (Some(unpacked), _) => unpacked,
            (None, Some(copy)) => {
                self.progress.receive(copy.report.stored_bytes);
                Unpacked::Staged(copy)
            }
            (None, None) => self.unpack(position)?,
        };
        let finished = match unpacked {
            Unpacked::Finished(layer, report) => (layer, report),
            Unpacked::Staged(staged) => self.publish(staged, below, copies)?,
        };
        self.progress.finish();
        Ok(finished)
    }

    fn publish(
        &self,
        staged: Staged<'a>,
        below: &[Layer],
        copies: &mut Copies<'a>,
    ) -> Result<(Layer, LayerReport), LayerFailure> {
        let position = below.len();
        let Staged {
            claim,
            staging,
            notes,
            report,
        } = staged;
        let key = if notes.are_settled() {
            Key::of_diff(&self.resolved.config.diff_ids[position])
        } else {
            self.copy(&staging, &notes, position, copies);
            settle(&staging.root(), &notes, below, self.deadline)?;
            Key::of_chain(&self.chain[position])
        };
        let layer = self.puller.store.publish(staging, &key, &notes)?;
        drop(claim);
        Ok((layer, report))
    }

    /// Copies a layer for its next place in the image, if it has one and nobody is there.
    fn copy(&self, staging: &Staging, notes: &Notes, position: usize, copies: &mut Copies<'a>) {
        let mut places = self.places(position).iter();
        let Some(next) = places.find(|place| **place > position) else {
            return;
        };
        let (store, diff_id) = (&self.puller.store, &self.resolved.config.diff_ids[*next]);
        let Some(claim) = store.try_claim(diff_id, &self.chain[*next]) else {
            return;
        };
        let Ok(form) = self.form(*next) else { return };
        match store.copy(staging, self.deadline) {
            Ok(copy) => {
                let staged = Staged {
                    claim,
                    staging: copy,
                    notes: notes.clone(),
                    report: self.report(*next, form),
                };
                copies.insert(*next, staged);
            }
            // It is fetched again then.
            Err(error) => tracing::debug!(%error, position = *next, "cannot copy a repeated layer"),
        }
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
