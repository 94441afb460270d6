//! The pull itself: resolve, judge, then all layers at once, each settled in its turn.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use agent_image_registry::{
    Blob, Client, Deadline, Digest, FetchError, ImageConfig, Over, Reference, Registry,
    RegistryError, ResolveError, Resolved, resolve, sentence, sources,
};
use agent_image_signatures::{
    Accepted, AcceptedSignature, Judge, Lookaside, SignatureError, SignaturePolicy,
};
use agent_image_unpacking::{
    AssembleError, Claim, ClaimError, Expected, Found, Key, Layer, LayerError, LayerReport, Meter,
    Notes, Progress, RootFs, SettleError, Staging, Store, StoreError, assemble, chain_ids,
    open_root, parse_media_type, settle, unpack,
};
use agent_keys::{KeyProvider, ResourceUri};

use crate::settings::{Config, ConfigError};

/// Layers at once: more would not be faster, and each costs buffers.
const PARALLEL_MAX: usize = 4;

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull {image}")]
pub struct PullError {
    image: Reference,
    #[source]
    cause: Box<PullFailure>,
}

impl PullError {
    /// The image that was asked for.
    #[must_use]
    pub fn image(&self) -> &Reference {
        &self.image
    }

    /// The step that failed.
    #[must_use]
    pub fn cause(&self) -> &PullFailure {
        &self.cause
    }

    /// The whole chain of causes as one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        sentence(self)
    }
}

/// The step of a pull that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullFailure {
    /// The configuration names nobody to ask.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Manifest or configuration.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The signature policy.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A thread that would unpack layers.
    #[error("a thread for its layers cannot be started")]
    Thread(#[source] io::Error),
    /// One of the layers.
    #[error("layer {number} of {count} ({digest}) is not usable")]
    Layer {
        /// Counted from the bottom, from 1.
        number: usize,
        /// How many the image has.
        count: usize,
        /// Its blob's digest.
        digest: Digest,
        /// What is wrong.
        #[source]
        cause: Box<LayerFailure>,
    },
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerFailure {
    /// Its download, its bytes or its files.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its place on the layers below.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The wait for its turn, or for another pull of the same layer.
    #[error("it was waited for in vain")]
    Wait(#[source] Over),
}

impl LayerFailure {
    /// Whether it only tells of another layer's failure.
    fn is_echo(&self) -> bool {
        matches!(
            self,
            Self::Wait(Over::Cancelled)
                | Self::Layer(
                    LayerError::Fetch(FetchError::Cancelled) | LayerError::Stopped(Over::Cancelled)
                )
                | Self::Settle(SettleError::Stopped(Over::Cancelled))
        )
    }
}

/// A verified image whose layers are in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the platform's manifest.
    pub manifest_digest: Digest,
    /// Digest of the image's configuration.
    pub config_digest: Digest,
    /// How the image asks to be run.
    pub config: ImageConfig,
    /// Digests of the unpacked layers, bottom first.
    pub diff_ids: Vec<Digest>,
    /// What became of each layer, bottom first.
    pub reports: Vec<LayerReport>,
    /// The signatures that met the policy; none if it demands none.
    pub signatures: Vec<AcceptedSignature>,
    layers: Vec<Layer>,
}

/// Pulls images into a store; one for all pods of a guest, shared between threads.
pub struct Puller {
    client: Client,
    store: Store,
    registries: Vec<Registry>,
    keys: Option<Arc<dyn KeyProvider>>,
    private_keys: Vec<ResourceUri>,
    signature_policy: Option<SignaturePolicy>,
    lookaside: Option<Lookaside>,
    deadline: Duration,
    layer_max_bytes: u64,
    parallel: usize,
}

impl Puller {
    /// Opens the store and sets up connections; talks to nobody yet.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn build(config: Config) -> Result<Self, ConfigError> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            client: config.client()?,
            store: Store::open(&config.store).map_err(ConfigError::Store)?,
            registries: config.registries,
            keys: config.keys,
            private_keys: config.private_keys,
            signature_policy: config.signature_policy,
            lookaside: config.lookaside,
            deadline: config.pull_deadline,
            layer_max_bytes: config.layer_max_bytes,
            parallel: config
                .parallel_layers
                .unwrap_or((cpus + 1).min(PARALLEL_MAX))
                .max(1),
        })
    }

    /// Pulls an image: what is returned is verified throughout, and its layers are in the store.
    ///
    /// # Errors
    /// See [`PullError`]; nothing of the failed part is left, and layers that were
    /// finished stay for the next try.
    pub fn pull(&self, reference: &Reference) -> Result<Image, PullError> {
        self.pull_watched(reference, &Progress::default())
    }

    /// As [`Self::pull`], while others look at `progress`.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn pull_watched(
        &self,
        reference: &Reference,
        progress: &Progress,
    ) -> Result<Image, PullError> {
        let failed = |cause| PullError {
            image: reference.clone(),
            cause: Box::new(cause),
        };
        let begin = Instant::now();
        let deadline = Deadline::within(self.deadline);
        let resolved = self.resolve(reference, &deadline).map_err(failed)?;
        let accepted = self
            .judge()
            .judge(reference, resolved, &deadline)
            .map_err(|error| failed(error.into()))?;
        let sizes = accepted.resolved().manifest.layers.iter();
        progress.begin(sizes.map(|layer| layer.size));
        let finished = self
            .layers(&accepted, &deadline, progress)
            .map_err(failed)?;
        let (layers, reports): (Vec<_>, _) = finished.into_iter().unzip();
        let (resolved, signatures) = accepted.into_parts();
        tracing::info!(
            image = %reference, manifest = %resolved.manifest_digest, layers = layers.len(),
            milliseconds = begin.elapsed().as_millis(), "pulled image"
        );
        Ok(Image {
            manifest_digest: resolved.manifest_digest,
            config_digest: resolved.manifest.config.digest,
            config: resolved.config.config,
            diff_ids: resolved.config.diff_ids,
            reports,
            signatures,
            layers,
        })
    }

    /// Mounts an image's layers on `<bundle>/rootfs`, with room for one container's changes.
    ///
    /// # Errors
    /// See [`AssembleError`]; nothing is left mounted.
    pub fn assemble(&self, image: &Image, bundle: &Path) -> Result<RootFs, AssembleError> {
        assemble(&self.store, &image.layers, bundle)
    }

    /// Asks the configured places in turn; the last one's answer counts if none has the image.
    fn resolve(&self, reference: &Reference, deadline: &Deadline) -> Result<Resolved, PullFailure> {
        let sources = sources(&self.registries, reference)?;
        let mut failure = None;
        for source in &sources {
            match resolve(&self.client, source, reference, deadline) {
                Ok(resolved) => return Ok(resolved),
                Err(error) => {
                    tracing::debug!(%error, origin = %source.origin, "source does not have the image");
                    failure = Some(error);
                }
            }
        }
        Err(failure.expect("an image has at least one source").into())
    }

    /// Requests sent by this puller so far, for tokens and redirects included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.client.requests()
    }

    /// Whoever decides whether an image's layers may be fetched.
    fn judge(&self) -> Judge<'_> {
        Judge {
            policy: self.signature_policy.as_ref(),
            lookaside: self.lookaside.as_ref(),
            keys: self.keys.as_deref(),
            client: &self.client,
        }
    }

    /// Fetches and unpacks the layers of an image that the signature policy accepts.
    fn layers(
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
