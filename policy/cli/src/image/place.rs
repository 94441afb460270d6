//! Where an image is: an OCI layout, an archive of one, or a registry.
//!
//! Named as skopeo names them. Digests of documents are checked, whatever the place
//! says; those of blobs by registries and by whoever encrypts or pulls them.

mod layout;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use agent_image::{Digest, Reference, ReferenceError, Remote, RemoteError};
use layout::{Layout, LayoutError};
use tempfile::TempDir;

use crate::image::registry::{OptionError, RegistryOptions};

/// A place as the user names it.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// `oci:DIR[:TAG]`
    Layout {
        directory: PathBuf,
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`
    Archive { file: PathBuf, tag: Option<String> },
    /// `docker://REF`
    Registry(Box<Reference>),
}

/// Why a place cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("{0} has no such image")]
    Absent(String),
    #[error("cannot {step} the archive {}", path.display())]
    Archive {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write a temporary file")]
    Temporary(#[source] io::Error),
    #[error("a registry is pushed to by tag, and this reference has a digest: name a tag")]
    PushedByDigest,
}

/// Why a text names no place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceNameError {
    #[error("it must begin with `oci:`, `oci-archive:` or `docker://`")]
    Scheme,
    #[error("it names no file")]
    Empty,
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// A manifest or index, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) media_type: Option<String>,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// A place opened to read from.
pub(crate) enum Source {
    Layout {
        layout: Layout,
        /// Where an archive was unpacked; goes when this does.
        _unpacked: Option<TempDir>,
    },
    Registry(Box<Remote>),
}

/// A place opened to write to.
pub(crate) enum Target {
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
    pub(crate) fn version(&self) -> Option<String> {
        match self {
            Self::Layout { tag, .. } | Self::Archive { tag, .. } => tag.clone(),
            Self::Registry(reference) => reference
                .digest()
                .map(Digest::to_string)
                .or_else(|| reference.tag().map(str::to_owned)),
        }
    }

    /// Opens it to read.
    pub(crate) fn source(&self, options: &RegistryOptions) -> Result<Source, PlaceError> {
        match self {
            Self::Layout { directory, .. } => Ok(Source::Layout {
                layout: Layout::open(directory)?,
                _unpacked: None,
            }),
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
                Ok(Source::Layout {
                    layout: Layout::open(directory.path())?,
                    _unpacked: Some(directory),
                })
            }
            Self::Registry(reference) => Ok(Source::Registry(Box::new(Remote::open(
                &options.config()?,
                reference,
            )?))),
        }
    }

    /// Opens it to write; a layout is made, or added to.
    pub(crate) fn target(&self, options: &RegistryOptions) -> Result<Target, PlaceError> {
        match self {
            Self::Layout { directory, .. } => Ok(Target::Layout(Layout::make(directory)?)),
            Self::Archive { file, .. } => {
                let unpacked = tempfile::tempdir().map_err(PlaceError::Temporary)?;
                Ok(Target::Archive {
                    layout: Layout::make(unpacked.path())?,
                    unpacked,
                    file: file.clone(),
                })
            }
            Self::Registry(reference) if reference.digest().is_some() => {
                Err(PlaceError::PushedByDigest)
            }
            Self::Registry(reference) => Ok(Target::Registry(Box::new(Remote::open(
                &options.config()?,
                reference,
            )?))),
        }
    }
}

impl Source {
    /// The image's manifest or index, by tag or digest; a layout with one image needs neither.
    pub(crate) fn root(&self, version: Option<&str>) -> Result<Document, PlaceError> {
        let absent = || PlaceError::Absent(version.unwrap_or("the source").to_owned());
        match self {
            Self::Layout { layout, .. } => layout.root(version)?.ok_or_else(absent),
            Self::Registry(_) => self
                .document(version.unwrap_or("latest"))?
                .ok_or_else(absent),
        }
    }

    /// A document by tag or digest, if there is one.
    pub(crate) fn document(&self, version: &str) -> Result<Option<Document>, PlaceError> {
        match self {
            Self::Layout { layout, .. } => Ok(layout.document(version)?),
            Self::Registry(remote) => Ok(remote.manifest(version)?.map(|found| Document {
                media_type: found.media_type,
                digest: found.digest,
                bytes: found.bytes,
            })),
        }
    }

    /// The documents that refer to a digest, as an index, if the place keeps any.
    pub(crate) fn referrers(&self, digest: &Digest) -> Result<Option<Document>, PlaceError> {
        match self {
            // As registries without the referrers API keep them.
            Self::Layout { .. } => self.document(&digest.as_str().replacen(':', "-", 1)),
            Self::Registry(remote) => Ok(remote.referrers(digest)?.map(|found| Document {
                media_type: found.media_type,
                digest: found.digest,
                bytes: found.bytes,
            })),
        }
    }

    /// Copies a blob; what arrived is to be thrown away if this fails.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        size: u64,
        sink: &mut dyn Write,
    ) -> Result<(), PlaceError> {
        match self {
            Self::Layout { layout, .. } => Ok(layout.copy(digest, sink)?),
            Self::Registry(remote) => Ok(remote.blob(digest, size, sink)?),
        }
    }
}

impl Target {
    /// A file for a blob that is not complete yet, where it can be taken from.
    pub(crate) fn draft(&self) -> Result<tempfile::NamedTempFile, PlaceError> {
        match self {
            Self::Layout(layout) | Self::Archive { layout, .. } => {
                tempfile::NamedTempFile::new_in(layout.path())
            }
            Self::Registry(_) => tempfile::NamedTempFile::new(),
        }
        .map_err(PlaceError::Temporary)
    }

    /// Takes a complete blob.
    pub(crate) fn put(
        &self,
        digest: &Digest,
        mut draft: tempfile::NamedTempFile,
    ) -> Result<(), PlaceError> {
        match self {
            Self::Layout(layout) | Self::Archive { layout, .. } => Ok(layout.put(digest, draft)?),
            Self::Registry(remote) => {
                let file = draft.as_file_mut();
                let size = file.seek(io::SeekFrom::End(0));
                let size = size.map_err(PlaceError::Temporary)?;
                file.rewind().map_err(PlaceError::Temporary)?;
                Ok(remote.push_blob(digest, size, &mut file.take(size))?)
            }
        }
    }

    /// Takes a manifest or index that is part of another one.
    pub(crate) fn put_document(&self, media_type: &str, bytes: &[u8]) -> Result<(), PlaceError> {
        let digest = Digest::sha256(bytes);
        match self {
            Self::Layout(layout) | Self::Archive { layout, .. } => {
                Ok(layout.put_bytes(&digest, bytes)?)
            }
            Self::Registry(remote) => {
                Ok(remote.push_manifest(digest.as_str(), media_type, bytes)?)
            }
        }
    }

    /// Takes the manifest or index that is the image, and so ends the work.
    pub(crate) fn finish(
        self,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), PlaceError> {
        match self {
            Self::Layout(layout) => Ok(layout.name(tag, media_type, bytes)?),
            Self::Registry(remote) => {
                Ok(remote.push_manifest(tag.unwrap_or("latest"), media_type, bytes)?)
            }
            Self::Archive {
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
