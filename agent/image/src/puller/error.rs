//! Why an image is not there, in words for users.

use std::io;

use agent_image_registry::{
    Digest, FetchError, Over, Reference, RegistryError, ResolveError, sentence,
};
use agent_image_signatures::SignatureError;
use agent_image_unpacking::{LayerError, SettleError, StoreError};

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull {image}")]
pub struct PullError {
    pub(super) image: Reference,
    #[source]
    pub(super) cause: Box<PullFailure>,
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
    pub(super) fn is_echo(&self) -> bool {
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
