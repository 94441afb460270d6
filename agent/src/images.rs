//! The one puller of the pod, made when the first image is asked for: reading the
//! certificates costs time and memory that a pod should not pay before.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_image::{Config, ConfigError, Puller};
pub use image_settings::SettingsError;
use thiserror::Error;

use crate::{
    image_settings, paths,
    scratch::{Place, Scratch, ScratchError},
};

/// Images cannot be had at all.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// The guest image or its command line holds what the puller cannot use.
    #[error("images cannot be pulled")]
    Config(#[from] ConfigError),
    /// The owner's initdata says how, and cannot be followed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is no place for them.
    #[error(transparent)]
    Scratch(#[from] Arc<ScratchError>),
}

/// How images are pulled.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// Proxy for registries with TLS.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without the proxy.
    pub no_proxy: Option<String>,
    /// How long a pull may take.
    pub pull_deadline: Duration,
}

/// Gets images.
pub struct Images {
    config: ImageConfig,
    scratch: Arc<Scratch>,
    puller: Mutex<Option<Arc<Puller>>>,
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
    pub fn new(config: ImageConfig, scratch: Arc<Scratch>) -> Self {
        Self {
            config,
            scratch,
            puller: Mutex::default(),
        }
    }

    /// Where images lie; waits until that is known.
    ///
    /// # Errors
    ///
    /// When the scratch disk cannot be used.
    pub(crate) fn place(&self) -> Result<Place, Arc<ScratchError>> {
        self.scratch.place()
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
        config.store = place.image_store();
        config.root_certificates = certificates.into_iter().collect();
        config.https_proxy = self.config.https_proxy.clone();
        config.no_proxy = self.config.no_proxy.clone();
        config.resolv_conf = PathBuf::from(paths::RESOLV_CONF);
        config.pull_deadline = self.config.pull_deadline;
        image_settings::apply(Path::new(agent_protocol::initdata::DIRECTORY), &mut config)?;
        let puller = Arc::new(Puller::build(config)?);
        *slot = Some(Arc::clone(&puller));
        Ok(puller)
    }
}
