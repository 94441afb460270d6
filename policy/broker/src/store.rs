//! Resources and the broker's own keys: one directory, encrypted files, one for each name.
//!
//! A file is written aside, synced and renamed, and then the directory is synced: whoever is
//! killed in between leaves the old content or the new one. The name is authenticated with the
//! content, so files cannot change places. What the disk's owner can do is put a file, or all of
//! them, back to an older state.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use agent_keys_protocol::ResourceName;
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::store_key::StoreKey;

/// Longest resource, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 1 << 20;
/// Longest file name, in bytes, with the longest ending.
const FILE_NAME_MAX: usize = 255;
const SEALED: &str = ".sealed";
const ASIDE: &str = ".aside-";
/// What sealing adds.
const SEALED_EXTRA: usize = 32;

/// The store cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory cannot be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not: among others that the disk is full or read-only.
        #[source]
        source: io::Error,
    },
    /// Too much of it.
    #[error("a resource has at most {RESOURCE_BYTES_MAX} bytes")]
    TooLong,
    /// A name that makes no file name.
    #[error("the resource name is too long for the store")]
    Name,
    /// Another key, another name, or a changed file.
    #[error("{0} does not open with this store key: it was sealed with another, moved or changed")]
    Sealed(PathBuf),
    /// The system gives no randomness.
    #[error("nothing can be stored, because the system gives no randomness")]
    Randomness,
}

/// Encrypted files in one directory.
pub struct Store {
    directory: PathBuf,
    key: StoreKey,
}

/// A name in the store: of a resource, or of a key of the broker's own.
struct Entry(String);

impl Entry {
    /// A comma is in no segment, so no two names are one file.
    fn of(name: &ResourceName) -> Self {
        Self(format!("resource,{}", name.to_string().replace('/', ",")))
    }

    fn own(name: &str) -> Self {
        Self(format!("own,{name}"))
    }
}

impl Store {
    /// Opens the store in this directory, and makes the directory if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the directory cannot be made or read.
    pub fn open(directory: &Path, key: StoreKey) -> Result<Self, StoreError> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("make", directory)(error));
            }
            _ => {}
        }
        let store = Self {
            directory: directory.to_owned(),
            key,
        };
        store.names()?;
        Ok(store)
    }

    /// Stores a resource, in place of an older one of the name.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then what was there is there.
    pub fn put(&self, name: &ResourceName, content: &[u8]) -> Result<(), StoreError> {
        self.write(&Entry::of(name), content)
    }

    /// A resource, or none of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it is there and cannot be read.
    pub fn find(&self, name: &ResourceName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.read(&Entry::of(name))
    }

    /// Removes a resource; false if there was none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it is still there.
    pub fn remove(&self, name: &ResourceName) -> Result<bool, StoreError> {
        let path = self.path(&Entry::of(name))?;
        match fs::remove_file(&path) {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &path)(error)),
        }
    }

    /// The names of all resources, sorted.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let read = || failed("read", &self.directory);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(read())? {
            let name = entry.map_err(read())?.file_name();
            let name = name.to_string_lossy();
            let resource = name
                .strip_prefix("resource,")
                .and_then(|rest| rest.strip_suffix(SEALED));
            names.extend(resource.map(|one| one.replace(',', "/")));
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn put_own(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        self.write(&Entry::own(name), content)
    }

    pub(crate) fn find_own(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.read(&Entry::own(name))
    }

    fn path(&self, entry: &Entry) -> Result<PathBuf, StoreError> {
        let name = format!("{}{SEALED}", entry.0);
        if name.len() > FILE_NAME_MAX {
            return Err(StoreError::Name);
        }
        Ok(self.directory.join(name))
    }

    fn read(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.path(entry)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let most = u64::try_from(RESOURCE_BYTES_MAX + SEALED_EXTRA).unwrap_or(u64::MAX);
        let mut sealed = Vec::new();
        file.take(most)
            .read_to_end(&mut sealed)
            .map_err(failed("read", &path))?;
        let opened = self.key.open_sealed(&entry.0, &sealed);
        opened.map(Some).ok_or(StoreError::Sealed(path))
    }

    fn write(&self, entry: &Entry, content: &[u8]) -> Result<(), StoreError> {
        if content.len() > RESOURCE_BYTES_MAX {
            return Err(StoreError::TooLong);
        }
        let path = self.path(entry)?;
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|_| StoreError::Randomness)?;
        let aside = self
            .directory
            .join(format!("{ASIDE}{}", hex::encode(random)));
        let sealed = self.key.seal(&entry.0, content);
        let moved = write_synced(&aside, &sealed)
            .map_err(failed("write", &aside))
            .and_then(|()| fs::rename(&aside, &path).map_err(failed("write", &path)));
        if moved.is_err() {
            // It may not have been made.
            let _ = fs::remove_file(&aside);
        }
        moved.and_then(|()| self.sync())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let directory = File::open(&self.directory).and_then(|one| one.sync_all());
        directory.map_err(failed("sync", &self.directory))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File {
        action,
        path,
        source,
    }
}
