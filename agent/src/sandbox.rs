//! The pod as a whole: its namespaces, its volumes, its name servers.
//!
//! A guest serves one pod, once: it is set up, it runs, it is taken down, and each step is
//! taken at most once. Nothing here clears what is there: a guest starts with nothing.

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use agent_containers::{StorageError, Storages, namespaces};
use agent_requests::{CreateSandbox, SandboxStorage, paths};
use policy_engine::Permit;
use thiserror::Error;

/// Why the pod cannot be set up or used.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// It is set up already; a guest serves one pod.
    #[error("the sandbox is set up already")]
    Exists,
    /// It is not set up yet.
    #[error("the sandbox is not set up yet")]
    New,
    /// It was taken down, or could not be set up.
    #[error("the sandbox is taken down")]
    Ended,
    /// A directory or file cannot be made.
    #[error("cannot make {path}")]
    File {
        /// Which.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The namespaces cannot be made.
    #[error("cannot make the pod's namespaces")]
    Namespaces(#[from] namespaces::NamespaceError),
    /// A volume cannot be mounted.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Where the pod stands; there is no way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    New,
    Created,
    Ended,
}

impl Stage {
    /// The stage in which the pod is while it is being set up: nothing comes after it, unless
    /// that succeeds.
    fn set_up(self) -> Result<Self, SandboxError> {
        match self {
            Self::New => Ok(Self::Ended),
            Self::Created => Err(SandboxError::Exists),
            Self::Ended => Err(SandboxError::Ended),
        }
    }

    fn in_use(self) -> Result<(), SandboxError> {
        match self {
            Self::New => Err(SandboxError::New),
            Self::Created => Ok(()),
            Self::Ended => Err(SandboxError::Ended),
        }
    }
}

/// The pod.
#[derive(Debug, Default)]
pub struct Sandbox {
    stage: Mutex<Stage>,
    storages: Arc<Storages>,
}

impl Sandbox {
    /// A pod that uses these volumes.
    #[must_use]
    pub fn new(storages: Arc<Storages>) -> Self {
        Self {
            stage: Mutex::default(),
            storages,
        }
    }

    /// Sets the pod up, once.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]; unless it was set up before, the pod has ended then.
    pub fn create(&self, permit: Permit<CreateSandbox>) -> Result<(), SandboxError> {
        // Held to the end: nothing is done with a pod that is half set up.
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        *stage = stage.set_up()?;
        let (request, claim) = permit.into_parts();
        self.set_up(request)?;
        let _ = claim.commit();
        *stage = Stage::Created;
        Ok(())
    }

    /// That containers may be made.
    ///
    /// # Errors
    ///
    /// When the pod is not set up, or taken down.
    pub fn in_use(&self) -> Result<(), SandboxError> {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        stage.in_use()
    }

    /// Takes the pod down: no container can be made any more.
    pub fn end(&self) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Ended;
    }

    fn set_up(&self, request: CreateSandbox) -> Result<(), SandboxError> {
        let made = |path: &'static str| move |source| SandboxError::File { path, source };
        for path in [paths::SHARED_ROOT, paths::SANDBOX_ROOT] {
            fs::create_dir_all(path).map_err(made(path))?;
        }
        namespaces::make(&request.hostname)?;
        for storage in request.storages {
            match storage {
                SandboxStorage::Ephemeral(storage) => {
                    self.storages.take_ephemeral(storage)?;
                }
            }
        }
        let mut lines = request.dns.join("\n");
        lines.push('\n');
        fs::write(paths::RESOLV_CONF, lines).map_err(made(paths::RESOLV_CONF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_set_up_once_and_one_that_failed_is_not_tried_again() {
        let failed = Stage::New.set_up().unwrap();
        assert!(matches!(failed.set_up(), Err(SandboxError::Ended)));
        assert!(matches!(Stage::Created.set_up(), Err(SandboxError::Exists)));
        assert!(matches!(Stage::Ended.set_up(), Err(SandboxError::Ended)));
    }

    #[test]
    fn containers_need_a_pod_that_is_set_up_and_not_taken_down() {
        assert!(matches!(Stage::New.in_use(), Err(SandboxError::New)));
        assert!(Stage::Created.in_use().is_ok());
        assert!(matches!(Stage::Ended.in_use(), Err(SandboxError::Ended)));
        let sandbox = Sandbox::default();
        sandbox.end();
        assert!(matches!(sandbox.in_use(), Err(SandboxError::Ended)));
    }
}
