//! The pod as a whole: its namespaces, its volumes, its name servers.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use agent_containers::{StorageError, Storages, namespaces};
use agent_requests::{CreateSandbox, SandboxStorage, paths};
use policy_engine::Permit;
use thiserror::Error;

/// Why the pod cannot be set up.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// It is set up already; a guest serves one pod.
    #[error("the sandbox is set up already")]
    Exists,
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

/// The pod.
#[derive(Debug, Default)]
pub struct Sandbox {
    created: AtomicBool,
    storages: Arc<Storages>,
}

impl Sandbox {
    /// A pod that uses these volumes.
    #[must_use]
    pub fn new(storages: Arc<Storages>) -> Self {
        Self {
            created: AtomicBool::new(false),
            storages,
        }
    }

    /// Sets the pod up, once.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]; it may be tried again then.
    pub fn create(&self, permit: Permit<CreateSandbox>) -> Result<(), SandboxError> {
        if self.created.swap(true, Ordering::SeqCst) {
            return Err(SandboxError::Exists);
        }
        let result = self.set_up(permit.into_request());
        if result.is_err() {
            self.created.store(false, Ordering::SeqCst);
        }
        result
    }

    fn set_up(&self, request: CreateSandbox) -> Result<(), SandboxError> {
        let made = |path: &'static str| move |source| SandboxError::File { path, source };
        clear(Path::new(paths::STATE_ROOT)).map_err(made(paths::STATE_ROOT))?;
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

/// Empties the state root, but for the image store: nothing in it is the host's.
fn clear(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path == Path::new(paths::IMAGE_STORE) {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
