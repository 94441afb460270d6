//! The pull itself: resolve, judge, then all layers at once, each settled in its turn.

mod error;
mod layers;

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agent_image_registry::{
    Client, Deadline, Digest, ImageConfig, Reference, Registry, Resolved, resolve, sources,
};
use agent_image_signatures::{AcceptedSignature, Judge, Lookaside, SignaturePolicy};
use agent_image_unpacking::{AssembleError, Layer, LayerReport, Progress, RootFs, Store, assemble};
use agent_keys::{KeyProvider, ResourceUri};
pub use error::{LayerFailure, PullError, PullFailure};

use crate::settings::{Config, ConfigError};

/// Layers at once: more would not be faster, and each costs buffers.
const PARALLEL_MAX: usize = 4;

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
}
