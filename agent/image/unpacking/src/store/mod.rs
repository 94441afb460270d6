//! Finished layers on disk, and the room where unfinished ones are made.
//!
//! ```text
//! <store>/lock              held while the store is open
//! <store>/staging/<n>/root  a layer being made; wiped when the store is opened
//! <store>/layers/<key>/     a finished layer: root/ and layer.json
//! <store>/containers/<n>/   a container's own changes: upper/ and work/
//! ```
//!
//! A layer's key is its diff id where its directory is right below any image, and
//! its chain id (OCI image specification 1.1, `config.md`, "Layer ChainID") where
//! it was settled against the layers below it. It is renamed into place when both
//! its digests matched, so that what is under `layers/` is verified by
//! construction. The file system belongs to the guest (or to the owner, outside
//! of one) and lives as long as the machine runs: nothing here is synced.

mod copy;
mod settle;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agent_image_registry::{Deadline, Digest, Over};
use rustix::{
    fs::{FlockOperation, XattrFlags, flock, fremovexattr, fsetxattr, unlinkat},
    io::Errno,
};
use serde::{Deserialize, Serialize};
pub(crate) use settle::copy_attributes;
pub use settle::{SettleError, settle};

use crate::tree::{self, Notes, OPAQUE, remove_directory};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An operation on one of its directories.
    #[error("cannot {step} `{path}` in the image store")]
    System {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Somebody else has it open.
    #[error("the image store `{0}` is in use by another process")]
    InUse(PathBuf),
    /// Not a file system for overlay layers.
    #[error(
        "the image store `{path}` cannot hold layers ({what}); it needs root and a file system such as ext4, xfs or tmpfs"
    )]
    Unfit {
        /// The store.
        path: PathBuf,
        /// What does not work on it.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::System { step, path, source }
}

/// A finished layer, and what its directory alone cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub(crate) root: PathBuf,
    pub(crate) root_stated: bool,
    pub(crate) root_opaque: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    root_stated: bool,
    root_opaque: bool,
}

/// How a finished layer is found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// For a layer that is right wherever it lies.
    #[must_use]
    pub fn of_diff(diff_id: &Digest) -> Self {
        Self(format!("diff-{}", diff_id.as_str().replace(':', "-")))
    }

    /// For a layer in its place on others.
    #[must_use]
    pub fn of_chain(chain_id: &Digest) -> Self {
        Self(format!("chain-{}", chain_id.as_str().replace(':', "-")))
    }
}

/// The chain id of each layer, bottom first.
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The layers that are mounted, top first: nothing below one that hides its whole
/// root, and of a layer that occurs twice only the upper one, which hides all of the other.
pub(crate) fn stack(layers: &[Layer]) -> Vec<&Layer> {
    let mut seen = BTreeSet::new();
    let mut stack = Vec::new();
    for layer in layers.iter().rev() {
        if seen.insert(&layer.root) {
            stack.push(layer);
        }
        if layer.root_opaque {
            break;
        }
    }
    stack
}

/// The directories of one store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    next: AtomicU64,
    claims: Mutex<BTreeSet<Digest>>,
    released: Condvar,
    _lock: File,
}

/// A directory in the staging area; removed when dropped, unless it was published.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
}

/// The right to make the layer at one place of a chain; others wait for it.
#[derive(Debug)]
pub struct Claim<'a> {
    store: &'a Store,
    chain_id: Digest,
}

/// What came of waiting for a layer.
#[derive(Debug)]
pub enum Found<'a> {
    /// The layer is there.
    Finished(Layer),
    /// It is ours to make.
    Claimed(Claim<'a>),
}

impl Store {
    /// Opens a store, making it if it is not there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        for directory in ["layers", "containers"] {
            let directory = path.join(directory);
            fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        }
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(failed("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StoreError::InUse(path.to_owned())),
            Err(error) => return Err(failed("lock", &lock_path)(error.into())),
        }
        let staging = path.join("staging");
        remove_directory(&staging).map_err(failed("clear", &staging))?;
        fs::create_dir(&staging).map_err(failed("make", &staging))?;
        probe(&staging)?;
        let next = next_container(&path.join("containers"))?;
        Ok(Self {
            path: path.to_owned(),
            next: AtomicU64::new(next),
            claims: Mutex::default(),
            released: Condvar::new(),
            _lock: lock,
        })
    }

    /// Finds a layer by its place or by itself.
    fn find(&self, diff_id: &Digest, chain_id: &Digest) -> Result<Option<Layer>, StoreError> {
        for key in [Key::of_diff(diff_id), Key::of_chain(chain_id)] {
            let directory = self.path.join("layers").join(key.0);
            let record = directory.join("layer.json");
            let text = match fs::read(&record) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", &record)(error)),
            };
            let read: Record = agent_documents::parse_json(&text)
                .map_err(|error| failed("read", &record)(error.into()))?;
            let Record {
                root_stated,
                root_opaque,
            } = read;
            return Ok(Some(Layer {
                root: directory.join("root"),
                root_stated,
                root_opaque,
            }));
        }
        Ok(None)
    }

    /// A finished layer, or the right to make it; waits while another pull makes it.
    pub fn find_or_claim(
        &self,
        diff_id: &Digest,
        chain_id: &Digest,
        deadline: &Deadline,
    ) -> Result<Found<'_>, ClaimError> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Looked up under the lock: a claim is given up only after its layer is published.
            if let Some(layer) = self.find(diff_id, chain_id)? {
                return Ok(Found::Finished(layer));
            }
            if claims.insert(chain_id.clone()) {
                return Ok(Found::Claimed(Claim {
                    store: self,
                    chain_id: chain_id.clone(),
                }));
            }
            let wait = deadline.check()?.min(Duration::from_secs(1));
            claims = self
                .released
                .wait_timeout(claims, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The right to make a layer that is neither finished nor being made; waits for nobody.
    #[must_use]
    pub fn try_claim(&self, diff_id: &Digest, chain_id: &Digest) -> Option<Claim<'_>> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = matches!(self.find(diff_id, chain_id), Ok(None));
        (is_free && claims.insert(chain_id.clone())).then(|| Claim {
            store: self,
            chain_id: chain_id.clone(),
        })
    }

    /// An empty directory of its own to make a layer in.
    pub fn stage(&self) -> Result<Staging, StoreError> {
        let path = self.path.join("staging").join(self.number().to_string());
        let root = path.join("root");
        fs::create_dir_all(&root).map_err(failed("make", &root))?;
        Ok(Staging { path })
    }

    /// Makes a staged layer a finished one.
    pub fn publish(&self, staging: Staging, key: &Key, notes: &Notes) -> Result<Layer, StoreError> {
        let Notes {
            root_stated,
            root_opaque,
            ..
        } = *notes;
        let record_path = staging.path.join("layer.json");
        let record = serde_json::to_vec(&Record {
            root_stated,
            root_opaque,
        })
        .map_err(|error| failed("write", &record_path)(error.into()))?;
        fs::write(&record_path, record).map_err(failed("write", &record_path))?;
        let target = self.path.join("layers").join(&key.0);
        match fs::rename(&staging.path, &target) {
            // A layer of the same key came from another chain in the meantime; it is the same.
            Err(error) if target.is_dir() => tracing::debug!(%error, "layer is finished already"),
            result => result.map_err(failed("finish", &target))?,
        }
        Ok(Layer {
            root: target.join("root"),
            root_stated,
            root_opaque,
        })
    }

    /// A directory of its own for a container's changes.
    pub(crate) fn container(&self) -> Result<PathBuf, StoreError> {
        let path = self.path.join("containers").join(self.number().to_string());
        fs::create_dir(&path).map_err(failed("make", &path))?;
        Ok(path)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Why neither a layer nor the right to make it was had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pull's time was over.
    #[error(transparent)]
    Over(#[from] Over),
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claims = self
            .store
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        claims.remove(&self.chain_id);
        self.store.released.notify_all();
    }
}

impl Staging {
    /// The directory that becomes the layer.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path.join("root")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing there is nothing here any more.
        if let Err(error) = remove_directory(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove an unfinished layer");
        }
    }
}

/// Numbers go on after those of containers that an earlier process left.
fn next_container(containers: &Path) -> Result<u64, StoreError> {
    let entries = fs::read_dir(containers).map_err(failed("read", containers))?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    Ok(numbers.max().map_or(0, |last| last.saturating_add(1)))
}

/// Tries what overlay layers need, so that a wrong file system is told at once and by name.
fn probe(staging: &Path) -> Result<(), StoreError> {
    let unfit = |what| {
        let path = staging.parent().unwrap_or(staging).to_owned();
        move |source| StoreError::Unfit { path, what, source }
    };
    let fd = tree::open_root(staging).map_err(unfit("directories cannot be opened"))?;
    fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())
        .map_err(unfit("no `trusted` extended attributes"))?;
    fremovexattr(&fd, OPAQUE).map_err(unfit("no `trusted` extended attributes"))?;
    tree::make_whiteout(&fd, b"probe").map_err(unfit("no device nodes"))?;
    unlinkat(&fd, "probe", rustix::fs::AtFlags::empty()).map_err(unfit("files cannot be removed"))
}

#[cfg(test)]
mod tests;
