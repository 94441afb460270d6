//! The document: version, algorithm, and texts by name.
//!
//! The digest is over the bytes as received, so the document is kept as it came and
//! never written anew. Unknown keys are refused: a rule that is not understood must
//! not be skipped. Names become files in the guest, so each is one plain file name.

use std::{collections::BTreeMap, fmt};

use agent_documents::{TooMuch, measure_toml};
use aws_lc_rs::digest;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::{DOCUMENT_BYTES_MAX, DOCUMENT_FILE, ENTRIES_MAX, HOST_DATA_BYTES, NAME_BYTES_MAX};

/// The only version of the format.
pub(super) const VERSION: &str = "0.1.0";

/// Why bytes are not an initdata document. Whoever wrote it is at fault, or the host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// Larger than any document may be.
    #[error("initdata of {0} bytes is larger than {DOCUMENT_BYTES_MAX}")]
    TooLarge(usize),
    /// Not text.
    #[error("initdata is not UTF-8 text")]
    Text,
    /// Not TOML. Says where, not what: the text may hold secrets.
    #[error("initdata is not TOML: mistake at byte {0}")]
    Toml(usize),
    /// TOML that is deeper or of more tokens than any document.
    #[error("initdata is not read: {0}")]
    TooMuch(TooMuch),
    /// A key that must be there is not.
    #[error("initdata has no {0}")]
    Missing(&'static str),
    /// A key holds something else than it should.
    #[error("{key} of initdata is not {expected}")]
    Kind {
        /// The key.
        key: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A key that has no meaning.
    #[error("initdata has the unknown key {0:?}: it knows version, algorithm and the table data")]
    Unknown(String),
    /// A version that is not known.
    #[error("initdata has version {0:?}, only {VERSION:?} is known")]
    Version(String),
    /// An algorithm that is not known.
    #[error("initdata names the algorithm {0:?}: it can be sha256, sha384 or sha512")]
    Algorithm(String),
    /// Too many entries.
    #[error("initdata has {0} entries, more than {ENTRIES_MAX}")]
    Entries(usize),
    /// A name that cannot be a file's.
    #[error(
        "initdata has an entry {0:?}: a name is 1 to {NAME_BYTES_MAX} letters, digits, '.', '-' and '_', \
         starts with a letter or digit, and is not {DOCUMENT_FILE:?}"
    )]
    Name(String),
    /// An entry that is no text.
    #[error("entry {0:?} of initdata is not a string")]
    Entry(String),
}

/// How the document says that its digest is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its name in the document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    fn of(self, bytes: &[u8]) -> Digest {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        Digest {
            algorithm: self,
            bytes: digest::digest(algorithm, bytes).as_ref().into(),
        }
    }
}

/// The digest of a document as it was received.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl Digest {
    /// SHA-256 of any bytes.
    pub(super) fn sha256(bytes: &[u8]) -> Self {
        Algorithm::Sha256.of(bytes)
    }

    /// How it was made.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes: 32, 48 or 64.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a platform's field of `N` bytes holds: cut on the right, or filled with
    /// zeros there.
    #[must_use]
    pub fn fitted<const N: usize>(&self) -> [u8; N] {
        let mut field = [0; N];
        for (to, from) in field.iter_mut().zip(&self.bytes) {
            *to = *from;
        }
        field
    }

    /// `HOST_DATA` of a SEV-SNP launch.
    #[must_use]
    pub fn host_data(&self) -> [u8; HOST_DATA_BYTES] {
        self.fitted()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm.name())
    }
}

/// A document that fits every rule. Its entries may be secret: it prints none.
#[derive(Clone, PartialEq, Eq)]
pub struct Initdata {
    text: Box<str>,
    algorithm: Algorithm,
    entries: BTreeMap<String, String>,
}

impl fmt::Debug for Initdata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initdata")
            .field("digest", &self.digest())
            .field("entries", &self.entries.keys())
            .finish()
    }
}

impl Initdata {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] names the rule that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::Text)?;
        measure_toml(text).map_err(DocumentError::TooMuch)?;
        let root = DeTable::parse(text)
            .map_err(|error| DocumentError::Toml(error.span().map_or(0, |span| span.start)))?;
        let root = root.get_ref();
        for key in root.keys() {
            let name: &str = key.get_ref();
            if !["version", "algorithm", "data"].contains(&name) {
                return Err(DocumentError::Unknown(name.to_owned()));
            }
        }
        let version = string(root, "version")?;
        if version != VERSION {
            return Err(DocumentError::Version(version.to_owned()));
        }
        let name = string(root, "algorithm")?;
        let algorithm =
            Algorithm::named(name).ok_or_else(|| DocumentError::Algorithm(name.to_owned()))?;
        Ok(Self {
            entries: entries(root)?,
            text: text.into(),
            algorithm,
        })
    }

    /// The document as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How its digest is made.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its digest, over the bytes as they came.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest_by(self.algorithm)
    }

    /// Its digest by another algorithm than the one it names, for platforms whose
    /// field takes only one.
    #[must_use]
    pub fn digest_by(&self, algorithm: Algorithm) -> Digest {
        algorithm.of(self.text.as_bytes())
    }

    /// Every entry, by name; each name is one plain file name.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<String, String> {
        &self.entries
    }
}

fn string<'a>(root: &'a DeTable<'_>, key: &'static str) -> Result<&'a str, DocumentError> {
    let value = root.get(key).ok_or(DocumentError::Missing(key))?;
    value.get_ref().as_str().ok_or(DocumentError::Kind {
        key,
        expected: "a string",
    })
}

fn entries(root: &DeTable<'_>) -> Result<BTreeMap<String, String>, DocumentError> {
    let table = root.get("data").ok_or(DocumentError::Missing("data"))?;
    let DeValue::Table(table) = table.get_ref() else {
        return Err(DocumentError::Kind {
            key: "data",
            expected: "a table",
        });
    };
    if table.len() > ENTRIES_MAX {
        return Err(DocumentError::Entries(table.len()));
    }
    let mut entries = BTreeMap::new();
    for (name, value) in table {
        let name: &str = name.get_ref();
        check_name(name)?;
        let value = value.get_ref().as_str();
        let value = value.ok_or_else(|| DocumentError::Entry(name.to_owned()))?;
        entries.insert(name.to_owned(), value.to_owned());
    }
    Ok(entries)
}

/// Whether an entry may have this name.
pub(super) fn check_name(name: &str) -> Result<(), DocumentError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let plain = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if plain && name != DOCUMENT_FILE {
        Ok(())
    } else {
        Err(DocumentError::Name(name.chars().take(64).collect()))
    }
}
