//! Where an image is: an OCI layout, an archive of one, or a registry.
//!
//! Named as skopeo names them. Digests of documents are checked, whatever the place
//! says; those of blobs by registries and by whoever encrypts or pulls them.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use agent_image::Config;
use agent_image_registry::{Digest, Reference, ReferenceError};
use tempfile::TempDir;

use crate::{
    document::Document,
    layout::{Layout, LayoutError},
    remote::{Remote, RemoteError},
};

/// A place as the user names it.
#[derive(Debug, Clone)]
pub enum Place {
    /// `oci:DIR[:TAG]`
    Layout {
        /// The layout.
        directory: PathBuf,
        /// Which of its images.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`
    Archive {
        /// The archive.
        file: PathBuf,
        /// Which of its images.
        tag: Option<String>,
    },
    /// `docker://REF`
    Registry(Box<Reference>),
}

/// Why a place cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A registry.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// No image of that name.
    #[error("{0} has no such image")]
    Absent(String),
    /// An archive.
    #[error("cannot {step} the archive {}", path.display())]
    Archive {
        /// What was being done.
        step: &'static str,
        /// Which archive.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A temporary file.
    #[error("cannot write a temporary file")]
    Temporary(#[source] io::Error),
    /// A push to a name with a digest.
    #[error("a registry is pushed to by tag, and this reference has a digest: name a tag")]
    PushedByDigest,
}

/// Why a text names no place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceNameError {
    /// Another way of naming places.
    #[error("it must begin with `oci:`, `oci-archive:` or `docker://`")]
    Scheme,
    /// Nothing after the scheme.
    #[error("it names no file")]
    Empty,
    /// Not the name of an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// A place opened to read from.
pub struct Source(Reading);

enum Reading {
    Layout {
        layout: Layout,
        /// Where an archive was unpacked; goes when this does.
        _unpacked: Option<TempDir>,
    },
    Registry(Box<Remote>),
}

/// A place opened to write to.
pub struct Target(Writing);

enum Writing {
    Layout(Layout),
    Archive {
        layout: Layout,
        unpacked: TempDir,
        file: PathBuf,
    },
    Registry(Box<Remote>),
}

impl FromStr for Place {
    type Err = PlaceNameError;

    fn from_str(text: &str) -> Result<Self, PlaceNameError> {
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(Box::new(Reference::parse(reference)?)));
        }
        let (scheme, rest) = text.split_once(':').ok_or(PlaceNameError::Scheme)?;
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let tag = tag.filter(|tag| !tag.is_empty());
        let path = PathBuf::from(path);
        match scheme {
            "oci" | "oci-archive" if path.as_os_str().is_empty() => Err(PlaceNameError::Empty),
            "oci" => Ok(Self::Layout {
                directory: path,
                tag,
            }),
            "oci-archive" => Ok(Self::Archive { file: path, tag }),
            _ => Err(PlaceNameError::Scheme),
        }
    }
}

impl Place {
    /// The tag or digest, if one is given.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        match self {
            Self::Layout { tag, .. } | Self::Archive { tag, .. } => tag.clone(),
            Self::Registry(reference) => reference
                .digest()
                .map(Digest::to_string)
                .or_else(|| reference.tag().map(str::to_owned)),
        }
    }

    /// Opens it to read.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn source(&self, config: &Config) -> Result<Source, PlaceError> {
        match self {
            Self::Layout { directory, .. } => Ok(Source(Reading::Layout {
                layout: Layout::open(directory)?,
                _unpacked: None,
            })),
            Self::Archive { file, .. } => {
                let failed = |source| PlaceError::Archive {
                    step: "unpack",
                    path: file.clone(),
                    source,
                };
                let directory = tempfile::tempdir().map_err(PlaceError::Temporary)?;
                let archive = File::open(file).map_err(failed)?;
                tar::Archive::new(archive)
                    .unpack(directory.path())
                    .map_err(failed)?;
                Ok(Source(Reading::Layout {
                    layout: Layout::open(directory.path())?,
                    _unpacked: Some(directory),
                }))
            }
            Self::Registry(reference) => {
                let remote = Remote::open(config, reference)?;
                Ok(Source(Reading::Registry(Box::new(remote))))
            }
        }
    }

    /// Opens it to write; a layout is made, or added to.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn target(&self, config: &Config) -> Result<Target, PlaceError> {
        match self {
            Self::Layout { directory, .. } => Ok(Target(Writing::Layout(Layout::make(directory)?))),
            Self::Archive { file, .. } => {
                let unpacked = tempfile::tempdir().map_err(PlaceError::Temporary)?;
                Ok(Target(Writing::Archive {
                    layout: Layout::make(unpacked.path())?,
                    unpacked,
                    file: file.clone(),
                }))
            }
            Self::Registry(reference) if reference.digest().is_some() => {
                Err(PlaceError::PushedByDigest)
            }
            Self::Registry(reference) => {
                let remote = Remote::open(config, reference)?;
                Ok(Target(Writing::Registry(Box::new(remote))))
            }
        }
    }
}

impl Source {
    /// The image's manifest or index, by tag or digest; a layout with one image needs neither.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn root(&self, version: Option<&str>) -> Result<Document, PlaceError> {
        let absent = || PlaceError::Absent(version.unwrap_or("the source").to_owned());
        match &self.0 {
            Reading::Layout { layout, .. } => layout.root(version)?.ok_or_else(absent),
            Reading::Registry(_) => self
                .document(version.unwrap_or("latest"))?
                .ok_or_else(absent),
        }
    }

    /// A document by tag or digest, if there is one.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn document(&self, version: &str) -> Result<Option<Document>, PlaceError> {
        match &self.0 {
            Reading::Layout { layout, .. } => Ok(layout.document(version)?),
            Reading::Registry(remote) => Ok(remote.manifest(version)?),
        }
    }

    /// The documents that refer to a digest, as an index, if the place keeps any.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn referrers(&self, digest: &Digest) -> Result<Option<Document>, PlaceError> {
        match &self.0 {
            // As registries without the referrers API keep them.
            Reading::Layout { .. } => self.document(&digest.as_str().replacen(':', "-", 1)),
            Reading::Registry(remote) => Ok(remote.referrers(digest)?),
        }
    }

    /// Copies a blob; what arrived is to be thrown away if this fails.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn blob(&self, digest: &Digest, size: u64, sink: &mut dyn Write) -> Result<(), PlaceError> {
        match &self.0 {
            Reading::Layout { layout, .. } => Ok(layout.copy(digest, sink)?),
            Reading::Registry(remote) => Ok(remote.blob(digest, size, sink)?),
        }
    }
}

impl Target {
    /// A file for a blob that is not complete yet, where it can be taken from.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn draft(&self) -> Result<tempfile::NamedTempFile, PlaceError> {
        match &self.0 {
            Writing::Layout(layout) | Writing::Archive { layout, .. } => {
                tempfile::NamedTempFile::new_in(layout.path())
            }
            Writing::Registry(_) => tempfile::NamedTempFile::new(),
        }
        .map_err(PlaceError::Temporary)
    }

    /// Takes a complete blob.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn put(
        &self,
        digest: &Digest,
        mut draft: tempfile::NamedTempFile,
    ) -> Result<(), PlaceError> {
        match &self.0 {
            Writing::Layout(layout) | Writing::Archive { layout, .. } => {
                Ok(layout.put(digest, draft)?)
            }
            Writing::Registry(remote) => {
                let file = draft.as_file_mut();
                let size = file.seek(io::SeekFrom::End(0));
                let size = size.map_err(PlaceError::Temporary)?;
                file.rewind().map_err(PlaceError::Temporary)?;
                Ok(remote.push_blob(digest, size, &mut file.take(size))?)
            }
        }
    }

    /// Takes a manifest or index that is part of another one.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn put_document(&self, media_type: &str, bytes: &[u8]) -> Result<(), PlaceError> {
        let digest = Digest::sha256(bytes);
        match &self.0 {
            Writing::Layout(layout) | Writing::Archive { layout, .. } => {
                Ok(layout.put_bytes(&digest, bytes)?)
            }
            Writing::Registry(remote) => {
                Ok(remote.push_manifest(digest.as_str(), media_type, bytes)?)
            }
        }
    }

    /// Takes the manifest or index that is the image, and so ends the work.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn finish(
        self,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), PlaceError> {
        match self.0 {
            Writing::Layout(layout) => Ok(layout.name(tag, media_type, bytes)?),
            Writing::Registry(remote) => {
                Ok(remote.push_manifest(tag.unwrap_or("latest"), media_type, bytes)?)
            }
            Writing::Archive {
                layout,
                unpacked,
                file,
            } => {
                layout.name(tag, media_type, bytes)?;
                pack(unpacked.path(), &file).map_err(|source| PlaceError::Archive {
                    step: "write",
                    path: file,
                    source,
                })
            }
        }
    }
}

fn pack(directory: &Path, file: &Path) -> io::Result<()> {
    let beside = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let draft = tempfile::NamedTempFile::new_in(beside)?;
    let mut archive = tar::Builder::new(draft.as_file());
    archive.mode(tar::HeaderMode::Deterministic);
    archive.append_dir_all(".", directory)?;
    archive.into_inner()?.sync_all()?;
    draft.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_as_skopeo_names_them() {
        let parse = |text: &str| format!("{:?}", text.parse::<Place>());
        for (text, expected) in [
            (
                "oci:a/b:t",
                r#"Ok(Layout { directory: "a/b", tag: Some("t") })"#,
            ),
            (
                "oci:/a:1/b",
                r#"Ok(Layout { directory: "/a:1/b", tag: None })"#,
            ),
            (
                "oci-archive:x.tar",
                r#"Ok(Archive { file: "x.tar", tag: None })"#,
            ),
            (
                "oci-archive:x.tar:v1",
                r#"Ok(Archive { file: "x.tar", tag: Some("v1") })"#,
            ),
            ("oci:", "Err(Empty)"),
            ("dir:/x", "Err(Scheme)"),
            ("x", "Err(Scheme)"),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        let registry: Place = "docker://r.example/a:1".parse().unwrap();
        assert_eq!(registry.version().as_deref(), Some("1"));
        assert!("docker://A b".parse::<Place>().is_err());
    }
}
