//! The snapshots that have a record: those that a container or an unpacker holds.
//!
//! One small JSON file each, named by the hash of its key (keys are containerd's
//! and hold slashes), replaced by rename. Nothing is synced: after a power failure
//! no container runs any more, and a record that does not parse is dropped when the
//! next process starts. Committed snapshots have no record at all, so the directory
//! can be wiped without containerd noticing.
//!
//! ```text
//! <root>/lock             held by the one process that uses the directory
//! <root>/empty/           what the node shows of every image: only its users
//! <root>/active/*.json    the records
//! <root>/scratch/*/       layers being unpacked in spite of us; discarded
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    image_users::ImageUsers,
    mounts,
    names::ChainId,
    wire::{Info, Kind, Mount, Timestamp},
};

/// What keeps a store from opening.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or something in it cannot be made or read.
    #[error("cannot use state directory at {path}")]
    Directory {
        /// The path at fault.
        path: PathBuf,
        #[source]
        /// Why.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("state directory {root} is in use by another kata-cc-snapshotter")]
    InUse {
        /// The directory.
        root: PathBuf,
    },
}

/// Why a snapshot could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No snapshot has this key.
    #[error("snapshot {0} does not exist")]
    NotFound(String),
    /// A snapshot has this key already.
    #[error("snapshot {0} exists already")]
    Exists(String),
    /// The parent is not a committed snapshot.
    #[error("parent {parent} of snapshot {key} is not a committed snapshot")]
    Parent {
        /// The snapshot.
        key: String,
        /// What it was to stand on.
        parent: String,
    },
    /// Something stands on it.
    #[error("snapshot {0} is in use by {1}")]
    InUse(String, String),
    /// A container's snapshot cannot become an image.
    #[error("snapshot {0} cannot be committed: what the container wrote is in its VM")]
    NotAnUnpack(String),
    /// A committed snapshot has to be named by its chain id.
    #[error("snapshot {key} cannot be committed as {name}: not a chain id")]
    CommitName {
        /// The snapshot.
        key: String,
        /// The name it was to get.
        name: String,
    },
    /// The disk said no.
    #[error("cannot {step} for snapshot {key}: {source}")]
    Io {
        /// The snapshot.
        key: String,
        /// What was tried.
        step: &'static str,
        #[source]
        /// Why it failed.
        source: io::Error,
    },
}

/// What a recorded snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A container's root.
    Container,
    /// A read-only look at an image.
    View,
    /// A layer being unpacked.
    Unpack,
}

/// One record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    key: String,
    role: Role,
    parent: String,
    labels: BTreeMap<String, String>,
    created: Timestamp,
    updated: Timestamp,
}

/// The records of one directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
    users: ImageUsers,
    _lock: File,
}

impl Store {
    /// Opens the directory, making it when it is missing, and reads its records. In `content`
    /// is containerd's content store.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or when another process has it open.
    pub fn open(root: &Path, content: &Path) -> Result<Self, OpenError> {
        for directory in [
            root.join("empty"),
            root.join("active"),
            root.join("scratch"),
        ] {
            fs::create_dir_all(&directory).map_err(directory_error(&directory))?;
        }
        let path = root.join("lock");
        let lock = File::create(&path).map_err(directory_error(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let root = root.to_owned();
                return Err(OpenError::InUse { root });
            }
            Err(TryLockError::Error(source)) => return Err(directory_error(&path)(source)),
        }
        let store = Self {
            records: Mutex::new(read_records(&root.join("active"))?),
            users: ImageUsers::new(&root.join("empty"), content),
            root: root.to_owned(),
            _lock: lock,
        };
        store.sweep();
        Ok(store)
    }

    /// Records a new snapshot and says what to mount for it.
    ///
    /// # Errors
    ///
    /// When the key is taken, the parent is no committed snapshot, or the disk fails.
    pub fn add(
        &self,
        key: &str,
        role: Role,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, StoreError> {
        if !parent.is_empty() && ChainId::of_committed(parent).is_none() {
            return Err(StoreError::Parent {
                key: key.to_owned(),
                parent: parent.to_owned(),
            });
        }
        let mut records = self.records();
        if records.contains_key(key) {
            return Err(StoreError::Exists(key.to_owned()));
        }
        let now = now();
        let record = Record {
            key: key.to_owned(),
            role,
            parent: parent.to_owned(),
            labels,
            created: now,
            updated: now,
        };
        let mounts = self.mounts_of(&record)?;
        self.write(&record)?;
        records.insert(record.key.clone(), record);
        Ok(mounts)
    }

    /// What to mount for a recorded snapshot.
    ///
    /// # Errors
    ///
    /// When there is none of this key, or the disk fails.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>, StoreError> {
        let records = self.records();
        let record = records
            .get(key)
            .ok_or_else(|| StoreError::NotFound(key.to_owned()))?;
        self.mounts_of(record)
    }

    /// Describes a snapshot: a recorded one, or the committed one of any chain id.
    ///
    /// # Errors
    ///
    /// When the key is neither.
    pub fn stat(&self, key: &str) -> Result<Info, StoreError> {
        if let Some(record) = self.records().get(key) {
            return Ok(record.info());
        }
        match ChainId::of_committed(key) {
            Some(_) => Ok(committed(key, "", BTreeMap::new())),
            None => Err(StoreError::NotFound(key.to_owned())),
        }
    }

    /// Replaces or sets labels: all of them, or with `only` those named.
    ///
    /// # Errors
    ///
    /// When there is no such snapshot, or the disk fails.
    pub fn update(
        &self,
        key: &str,
        labels: BTreeMap<String, String>,
        only: Option<&[String]>,
    ) -> Result<Info, StoreError> {
        let mut records = self.records();
        let Some(old) = records.get(key) else {
            drop(records);
            // containerd keeps the labels of committed snapshots itself.
            let mut info = self.stat(key)?;
            info.labels = labels;
            return Ok(info);
        };
        let mut record = old.clone();
        match only {
            None => record.labels = labels,
            Some(names) => {
                for name in names {
                    let value = labels.get(name).cloned().unwrap_or_default();
                    record.labels.insert(name.clone(), value);
                }
            }
        }
        record.updated = now();
        self.write(&record)?;
        let info = record.info();
        records.insert(record.key.clone(), record);
        Ok(info)
    }

    /// Ends the unpacking of a layer; what was unpacked is discarded.
    ///
    /// # Errors
    ///
    /// When the snapshot is not one to unpack into, or the name is not a chain id.
    pub fn commit(&self, name: &str, key: &str) -> Result<(), StoreError> {
        let mut records = self.records();
        let record = records
            .get(key)
            .ok_or_else(|| StoreError::NotFound(key.to_owned()))?;
        if record.role != Role::Unpack {
            return Err(StoreError::NotAnUnpack(key.to_owned()));
        }
        if ChainId::of_committed(name).is_none() {
            return Err(StoreError::CommitName {
                key: key.to_owned(),
                name: name.to_owned(),
            });
        }
        self.forget(&mut records, key)?;
        drop(records);
        self.discard(key);
        Ok(())
    }

    /// Removes a snapshot; a committed one has nothing to remove.
    ///
    /// # Errors
    ///
    /// When there is none, something stands on it, or the disk fails.
    pub fn remove(&self, key: &str) -> Result<(), StoreError> {
        let mut records = self.records();
        if let Some(child) = records.values().find(|r| r.parent == key) {
            return Err(StoreError::InUse(key.to_owned(), child.key.clone()));
        }
        if let Some(role) = records.get(key).map(|r| r.role) {
            self.forget(&mut records, key)?;
            drop(records);
            if role == Role::Unpack {
                self.discard(key);
            }
            return Ok(());
        }
        match ChainId::of_committed(key) {
            Some(_) => Ok(()),
            None => Err(StoreError::NotFound(key.to_owned())),
        }
    }

    /// All recorded snapshots and the committed ones below them.
    ///
    /// containerd's garbage collector walks this as a tree from its roots, and would
    /// never reach a snapshot whose parent is not listed.
    #[must_use]
    pub fn list(&self) -> Vec<Info> {
        let records = self.records();
        let parents: HashSet<&str> = records
            .values()
            .map(|r| r.parent.as_str())
            .filter(|p| !p.is_empty())
            .collect();
        let parents = parents
            .into_iter()
            .map(|p| committed(p, "", BTreeMap::new()));
        parents.chain(records.values().map(Record::info)).collect()
    }

    /// Deletes layers that a killed unpacker left behind.
    pub fn sweep(&self) {
        let scratch = self.root.join("scratch");
        // Listed before the records are read: a layer begun in between is not in the list.
        let Ok(entries) = fs::read_dir(scratch) else {
            return;
        };
        let found: Vec<_> = entries.flatten().collect();
        let held: HashSet<String> = self.records().keys().map(|k| file_stem(k)).collect();
        for entry in found {
            if !held.contains(entry.file_name().to_string_lossy().as_ref())
                && let Err(error) = absent(fs::remove_dir_all(entry.path()))
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot delete an unpacked layer");
            }
        }
    }

    /// The map stays whole when a thread panics: each change is one insertion or removal.
    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory may have been wiped since, so what is to be mounted is made here.
    fn mounts_of(&self, record: &Record) -> Result<Vec<Mount>, StoreError> {
        let directory = match record.role {
            Role::Unpack => self.scratch(&record.key),
            Role::Container | Role::View => self.root.join("empty"),
        };
        fs::create_dir_all(&directory).map_err(io_error(&record.key, "make the directory"))?;
        if record.role != Role::Unpack {
            let shown = self.users.refresh();
            shown.map_err(io_error(&record.key, "show the image's users"))?;
        }
        Ok(vec![match record.role {
            Role::Unpack => mounts::scratch(&directory),
            Role::Container | Role::View => mounts::guest_pull(&directory),
        }])
    }

    fn write(&self, record: &Record) -> Result<(), StoreError> {
        let failed = io_error(&record.key, "write the record");
        let path = self.record_path(&record.key);
        let partial = path.with_extension("partial");
        let json = serde_json::to_vec(record).expect("strings and numbers always serialize");
        fs::create_dir_all(self.root.join("active"))
            .and_then(|()| fs::write(&partial, json))
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(failed)
    }

    fn forget(&self, records: &mut BTreeMap<String, Record>, key: &str) -> Result<(), StoreError> {
        absent(fs::remove_file(self.record_path(key)))
            .map_err(io_error(key, "delete the record"))?;
        records.remove(key);
        Ok(())
    }

    /// Deletes an unpacked layer that has no record any more; takes long, so without the lock.
    fn discard(&self, key: &str) {
        let path = self.scratch(key);
        if let Err(error) = absent(fs::remove_dir_all(&path)) {
            tracing::warn!(path = %path.display(), %error, "cannot delete an unpacked layer");
        }
    }

    fn record_path(&self, key: &str) -> PathBuf {
        let file = format!("{}.json", file_stem(key));
        self.root.join("active").join(file)
    }

    fn scratch(&self, key: &str) -> PathBuf {
        self.root.join("scratch").join(file_stem(key))
    }
}

impl Record {
    fn info(&self) -> Info {
        let kind = match self.role {
            Role::Container | Role::Unpack => Kind::Active,
            Role::View => Kind::View,
        };
        Info {
            name: self.key.clone(),
            parent: self.parent.clone(),
            kind: kind.into(),
            created_at: Some(self.created),
            updated_at: Some(self.updated),
            labels: self.labels.clone(),
        }
    }
}

/// A committed snapshot, described from nothing but its name.
///
/// containerd overwrites the parent, times and labels with its own.
pub(crate) fn committed(name: &str, parent: &str, labels: BTreeMap<String, String>) -> Info {
    let epoch = Timestamp::default();
    Info {
        name: name.to_owned(),
        parent: parent.to_owned(),
        kind: Kind::Committed.into(),
        created_at: Some(epoch),
        updated_at: Some(epoch),
        labels,
    }
}

fn read_records(directory: &Path) -> Result<BTreeMap<String, Record>, OpenError> {
    let mut records = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(directory_error(directory))? {
        let path = entry.map_err(directory_error(directory))?.path();
        let bytes = fs::read(&path).map_err(directory_error(&path))?;
        match agent_documents::parse_json::<Record>(&bytes) {
            Ok(record) => {
                records.insert(record.key.clone(), record);
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "dropping a record that does not parse");
                fs::remove_file(&path).map_err(directory_error(&path))?;
            }
        }
    }
    Ok(records)
}

fn file_stem(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn directory_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Directory { path, source }
}

fn io_error(key: &str, step: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let key = key.to_owned();
    move |source| StoreError::Io { key, step, source }
}

#[cfg(test)]
mod tests;
