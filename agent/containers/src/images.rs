//! The one puller of the pod, made when the first image is asked for: reading the
//! certificates costs time and memory that a pod should not pay before.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use agent_image::{Config, ConfigError, Image, OwnerConfigError, Puller};
use agent_image_registry::Reference;
use agent_keys::{Cached, KeyProvider};
use agent_requests::paths;
use agent_scratch_disk::{Place, Scratch, ScratchError};
use thiserror::Error;
use tracing::{info, warn};

use crate::{pulled::Pulled, root::RootError};

/// Images cannot be had at all.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// The guest image or its command line holds what the puller cannot use.
    #[error("images cannot be pulled")]
    Config(#[from] ConfigError),
    /// The owner's initdata says how, and cannot be followed.
    #[error(transparent)]
    Owner(#[from] OwnerConfigError),
    /// There is no place for them.
    #[error(transparent)]
    Scratch(#[from] Arc<ScratchError>),
}

/// How images are pulled.
#[derive(Debug, Clone)]
pub struct PullConfig {
    /// Proxy for registries with TLS.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without the proxy.
    pub no_proxy: Option<String>,
    /// How long a pull may take.
    pub pull_deadline: Duration,
}

/// Gets images.
pub struct Images {
    config: PullConfig,
    scratch: Arc<Scratch>,
    keys: Option<Arc<dyn KeyProvider>>,
    puller: Mutex<Option<Arc<Puller>>>,
    pulled: Pulled<Image>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Pulls as configured, to where the scratch disk says.
    #[must_use]
    pub fn new(config: PullConfig, scratch: Arc<Scratch>) -> Self {
        Self {
            config,
            scratch,
            keys: None,
            puller: Mutex::default(),
            pulled: Pulled::default(),
        }
    }

    /// With the broker that initdata names, if it names one; nobody asks it before an image
    /// is pulled, which takes a permit.
    #[must_use]
    pub fn with_keys(mut self, broker: Option<Arc<dyn KeyProvider>>) -> Self {
        self.keys = broker.map(|broker| Arc::new(Cached::new(broker)) as Arc<dyn KeyProvider>);
        self
    }

    /// Where images lie; waits until that is known.
    ///
    /// # Errors
    ///
    /// When the scratch disk cannot be used.
    pub(crate) fn place(&self) -> Result<Place, Arc<ScratchError>> {
        self.scratch.place()
    }

    /// Pulls images, one after another, beside whatever else the guest does: containers that
    /// are asked for later find theirs, or wait for less of it. What fails is tried again when
    /// a container needs it, and told then.
    pub(crate) fn pull_ahead(self: Arc<Self>, references: Vec<String>) {
        if references.is_empty() {
            return;
        }
        self.pulled.keep(&references);
        // Nobody waits for this thread: the guest may end before it.
        let begun = thread::Builder::new()
            .name("pull-ahead".to_owned())
            .spawn(move || {
                for reference in references {
                    match self.pull(&reference) {
                        Ok(_) => info!("image pulled ahead"),
                        Err(error) => {
                            warn!(error = &error as &dyn Error, "image not pulled ahead");
                        }
                    }
                }
            });
        if begun.is_err() {
            warn!("no image is pulled ahead");
        }
    }

    /// The image that a text names: what was pulled of the policy's images, or else pulled now.
    ///
    /// # Errors
    ///
    /// [`RootError`].
    pub(crate) fn pull(&self, text: &str) -> Result<(Reference, Image), RootError> {
        let reference = Reference::parse(text).map_err(|source| RootError::Reference {
            text: text.to_owned(),
            source,
        })?;
        let pull = || Ok::<_, RootError>(self.puller()?.pull(&reference)?);
        let image = self.pulled.get(text, pull)?;
        Ok((reference, image))
    }

    /// The puller.
    ///
    /// # Errors
    ///
    /// [`ImagesError`].
    pub fn puller(&self) -> Result<Arc<Puller>, ImagesError> {
        let place = self.place()?;
        let mut slot = self.puller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(puller) = &*slot {
            return Ok(Arc::clone(puller));
        }
        let certificates = std::fs::read(paths::CERTIFICATES).ok();
        let mut config = Config::default();
        config.store = image_store(&place);
        config.root_certificates = certificates.into_iter().collect();
        config.https_proxy = self.config.https_proxy.clone();
        config.no_proxy = self.config.no_proxy.clone();
        config.resolv_conf = PathBuf::from(paths::RESOLV_CONF);
        config.pull_deadline = self.config.pull_deadline;
        config.keys.clone_from(&self.keys);
        config.follow(Path::new(agent_protocol::initdata::DIRECTORY))?;
        let puller = Arc::new(Puller::build(config)?);
        *slot = Some(Arc::clone(&puller));
        Ok(puller)
    }
}

/// Where the puller keeps images and containers' changes.
fn image_store(place: &Place) -> PathBuf {
    match place {
        Place::Disk { .. } => Path::new(agent_scratch_disk::ROOT).join("image"),
        Place::Memory => paths::IMAGE_STORE.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_lie_where_the_place_is() {
        let scratch = Scratch::memory();
        let memory = scratch.place().unwrap();
        assert_eq!(image_store(&memory), Path::new(paths::IMAGE_STORE));
        let disk = Place::Disk { mib: 1 };
        assert!(image_store(&disk).starts_with(agent_scratch_disk::ROOT));
    }
}
