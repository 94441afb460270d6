//! The key under which the store's contents are encrypted, in a file of its own.
//!
//! Whoever reads the disk that holds the store must not find the key there: the file has to be
//! outside the broker's directory, and readable by its owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    rand,
};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
/// First bytes of whatever is sealed.
const MAGIC: &[u8; 4] = b"kcb1";

/// The file of the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreKeyError {
    /// The file cannot be read or made.
    #[error("cannot use the store key {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("others can read the store key {0}: chmod 600 it")]
    Readable(PathBuf),
    /// It lies where the store lies.
    #[error(
        "the store key {0} lies beside what it encrypts: keep it outside the broker's directory"
    )]
    Beside(PathBuf),
    /// It is no key.
    #[error("the store key {0} is not 64 hexadecimal digits")]
    Form(PathBuf),
    /// The system gives no randomness.
    #[error("no store key can be made, because the system gives no randomness")]
    Randomness,
}

/// A key that seals and opens; it shows itself to nobody.
pub struct StoreKey(RandomizedNonceKey);

impl StoreKey {
    /// Makes a key in a new file outside of `directory`.
    ///
    /// # Errors
    ///
    /// [`StoreKeyError`], also if the file exists.
    pub fn create(path: &Path, directory: &Path) -> Result<Self, StoreKeyError> {
        refuse_beside(path, directory)?;
        let failed = |source| StoreKeyError::File {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rand::fill(&mut *bytes).map_err(|_| StoreKeyError::Randomness)?;
        let text = Zeroizing::new(hex::encode(*bytes) + "\n");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(Self::of(&bytes))
    }

    /// Reads the key of the broker in `directory`.
    ///
    /// # Errors
    ///
    /// [`StoreKeyError`]
    pub fn open(path: &Path, directory: &Path) -> Result<Self, StoreKeyError> {
        refuse_beside(path, directory)?;
        let failed = |source| StoreKeyError::File {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(StoreKeyError::Readable(path.to_owned()));
        }
        let form = || StoreKeyError::Form(path.to_owned());
        if metadata.len() > 128 {
            return Err(form());
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        hex::decode_to_slice(text.trim_end(), &mut *bytes).map_err(|_| form())?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8; KEY_LEN]) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes);
        Self(key.expect("a key of AES-256 has 32 bytes"))
    }

    /// Encrypts `content` so that it opens under the same name only.
    pub(crate) fn seal(&self, name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = content.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut bytes)
            .expect("the content is shorter than AES-GCM's limit");
        [MAGIC, nonce.as_ref().as_slice(), &bytes].concat()
    }

    /// The content, if this key sealed it under this name.
    pub(crate) fn open_sealed(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let rest = sealed.strip_prefix(MAGIC)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let aad = Aad::from(name.as_bytes());
        let opened = self.0.open_in_place(nonce, aad, &mut bytes).ok()?.len();
        bytes.truncate(opened);
        Some(bytes)
    }
}

/// Both are looked up as they are, so that a link does not hide where the key is.
fn refuse_beside(path: &Path, directory: &Path) -> Result<(), StoreKeyError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(_) => fs::canonicalize(parent).map_err(|source| StoreKeyError::File {
            path: path.to_owned(),
            source,
        })?,
    };
    match fs::canonicalize(directory) {
        Ok(directory) if real.starts_with(&directory) => {
            Err(StoreKeyError::Beside(path.to_owned()))
        }
        _ => Ok(()),
    }
}
