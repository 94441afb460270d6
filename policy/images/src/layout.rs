//! A directory with images: `oci-layout`, `index.json` and `blobs/`.
//!
//! Format: OCI image specification 1.1, `image-layout.md`. A layout that is added to
//! keeps what it has; an image of the same name is replaced.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use agent_documents::parse_json;
use agent_image_registry::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::document::Document;

const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The tag of an image (OCI image specification 1.1, `annotations.md`).
const NAME: &str = "org.opencontainers.image.ref.name";
/// Largest document that is read whole.
const DOCUMENT_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// An OCI layout.
pub(crate) struct Layout(PathBuf);

/// Why a layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not a layout.
    #[error("{} is no OCI layout: it has no index.json", .0.display())]
    NotOne(PathBuf),
    /// A file operation.
    #[error("cannot {step} {}", path.display())]
    System {
        /// Which.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{} cannot be read", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// More bytes than are read.
    #[error("{} is longer than any document", .0.display())]
    TooLong(PathBuf),
    /// No tag, and more images than one.
    #[error("{} has {count} images, so the tag of one must be given", path.display())]
    Several {
        /// The layout.
        path: PathBuf,
        /// How many images it has.
        count: usize,
    },
    /// A blob that was changed.
    #[error("{} has other bytes than its name says", .0.display())]
    Digest(PathBuf),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    manifests: Vec<Entry>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Entry {
    fn name(&self) -> Option<&str> {
        self.annotations.get(NAME)?.as_str()
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::System { step, path, source }
}

impl Layout {
    /// Opens one that is there.
    pub(crate) fn open(directory: &Path) -> Result<Self, LayoutError> {
        if !directory.join("index.json").is_file() {
            return Err(LayoutError::NotOne(directory.to_owned()));
        }
        Ok(Self(directory.to_owned()))
    }

    /// Opens one, making it if it is not there.
    pub(crate) fn make(directory: &Path) -> Result<Self, LayoutError> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("make", &blobs))?;
        let layout = Self(directory.to_owned());
        let marker = directory.join("oci-layout");
        if !marker.exists() {
            fs::write(&marker, MARKER).map_err(failed("write", &marker))?;
        }
        if !directory.join("index.json").exists() {
            layout.save(&Index {
                schema_version: 2,
                manifests: Vec::new(),
                rest: Map::new(),
            })?;
        }
        Ok(layout)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn index(&self) -> Result<Index, LayoutError> {
        let path = self.0.join("index.json");
        let bytes = read(&path)?;
        parse_json(&bytes).map_err(|source| LayoutError::Json { path, source })
    }

    fn save(&self, index: &Index) -> Result<(), LayoutError> {
        let path = self.0.join("index.json");
        let bytes = serde_json::to_vec(index).expect("an index is an object");
        let mut draft = NamedTempFile::new_in(&self.0).map_err(failed("write in", &self.0))?;
        draft.write_all(&bytes).map_err(failed("write", &path))?;
        publish(draft, &path)
    }

    /// The document of a tag or digest, or of the only image.
    pub(crate) fn root(&self, version: Option<&str>) -> Result<Option<Document>, LayoutError> {
        if let Some(version) = version {
            return self.document(version);
        }
        let index = self.index()?;
        match index.manifests.as_slice() {
            [] => Ok(None),
            [only] => self.of_entry(only),
            several => Err(LayoutError::Several {
                path: self.0.clone(),
                count: several.len(),
            }),
        }
    }

    /// The document of a tag or digest.
    pub(crate) fn document(&self, version: &str) -> Result<Option<Document>, LayoutError> {
        if let Ok(digest) = Digest::parse(version) {
            return self.stored(digest, None);
        }
        let index = self.index()?;
        let entry = index.manifests.iter().find(|e| e.name() == Some(version));
        entry.map_or(Ok(None), |entry| self.of_entry(entry))
    }

    fn of_entry(&self, entry: &Entry) -> Result<Option<Document>, LayoutError> {
        match Digest::parse(&entry.digest) {
            Ok(digest) => self.stored(digest, Some(entry.media_type.clone())),
            Err(_) => Err(LayoutError::Digest(self.0.join("index.json"))),
        }
    }

    fn stored(
        &self,
        digest: Digest,
        media_type: Option<String>,
    ) -> Result<Option<Document>, LayoutError> {
        let path = self.blob(&digest);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read(&path)?;
        if digest.as_str().starts_with("sha256:") && Digest::sha256(&bytes) != digest {
            return Err(LayoutError::Digest(path));
        }
        Ok(Some(Document {
            media_type,
            digest,
            bytes,
        }))
    }

    /// Where a blob is; a digest is of a fixed alphabet, so this stays below the layout.
    fn blob(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = digest.as_str().split_once(':').unwrap_or_default();
        self.0.join("blobs").join(algorithm).join(hex)
    }

    /// Copies a blob as it is.
    pub(crate) fn copy(&self, digest: &Digest, sink: &mut dyn Write) -> Result<(), LayoutError> {
        let path = self.blob(digest);
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length = file.read(&mut buffer).map_err(failed("read", &path))?;
            match buffer.get(..length) {
                Some([]) | None => return Ok(()),
                Some(bytes) => sink.write_all(bytes).map_err(failed("copy", &path))?,
            }
        }
    }

    /// Takes a complete blob.
    pub(crate) fn put(&self, digest: &Digest, draft: NamedTempFile) -> Result<(), LayoutError> {
        let path = self.blob(digest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        publish(draft, &path)
    }

    /// Takes a document.
    pub(crate) fn put_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), LayoutError> {
        let mut draft = NamedTempFile::new_in(&self.0).map_err(failed("write in", &self.0))?;
        draft
            .write_all(bytes)
            .map_err(failed("write in", &self.0))?;
        self.put(digest, draft)
    }

    /// Takes a document and names it.
    pub(crate) fn name(
        &self,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), LayoutError> {
        let digest = Digest::sha256(bytes);
        self.put_bytes(&digest, bytes)?;
        let mut index = self.index()?;
        let same = |entry: &Entry| entry.name() == tag && tag.is_some();
        let there = |entry: &Entry| entry.digest == digest.as_str() && tag.is_none();
        index
            .manifests
            .retain(|entry| !same(entry) && !there(entry));
        let mut annotations = Map::new();
        if let Some(tag) = tag {
            annotations.insert(NAME.to_owned(), tag.into());
        }
        index.manifests.push(Entry {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size: bytes.len() as u64,
            annotations,
            rest: Map::new(),
        });
        index
            .rest
            .entry("mediaType")
            .or_insert_with(|| OCI_INDEX.into());
        self.save(&index)
    }
}

/// Temporary files are private; images are for everybody whom the directory lets in.
fn publish(draft: NamedTempFile, path: &Path) -> Result<(), LayoutError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(draft.path(), mode).map_err(failed("write", path))?;
    draft
        .persist(path)
        .map(drop)
        .map_err(|error| failed("write", path)(error.error))
}

fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
        return Err(LayoutError::TooLong(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_name_or_as_the_only_one_and_replaced_by_name() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            Layout::open(directory.path()),
            Err(LayoutError::NotOne(_))
        ));
        let layout = Layout::make(directory.path()).unwrap();
        assert!(layout.root(None).unwrap().is_none());
        layout.name(Some("a"), "m", b"{}").unwrap();
        layout.name(Some("a"), "m", b"{ }").unwrap();
        assert_eq!(layout.root(None).unwrap().unwrap().bytes, b"{ }");
        layout.name(Some("b"), "m", b"{}").unwrap();
        assert_eq!(layout.root(Some("b")).unwrap().unwrap().bytes, b"{}");
        assert!(layout.root(Some("c")).unwrap().is_none());
        assert!(matches!(
            layout.root(None),
            Err(LayoutError::Several { count: 2, .. })
        ));
    }

    #[test]
    fn changed_documents_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::make(directory.path()).unwrap();
        layout.name(Some("a"), "m", b"{}").unwrap();
        fs::write(layout.blob(&Digest::sha256(b"{}")), "{ }").unwrap();
        assert!(matches!(
            layout.root(Some("a")),
            Err(LayoutError::Digest(_))
        ));
    }
}
