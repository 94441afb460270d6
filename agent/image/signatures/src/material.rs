//! Where a requirement's keys come from: the policy itself, a file, or a resource of
//! the key broker.

use std::{fmt, fs::File, io::Read, path::PathBuf};

use agent_keys::{KeyError, KeyProvider, ResourceUri};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::shown::shown;

/// Key rings of well-connected people have hundreds of kilobytes.
const SIZE_MAX: u64 = 4 * 1024 * 1024;
const PEM_BEGIN: &str = "-----BEGIN ";

/// A key, or a ring of them, as the policy gives it.
#[derive(Debug, Clone)]
pub(super) enum Material {
    Inline { number: usize, bytes: Vec<u8> },
    File(PathBuf),
    Resource(ResourceUri),
}

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum MaterialError {
    /// The file system.
    #[error("the file cannot be read")]
    File(#[source] std::io::Error),
    /// More bytes than are read.
    #[error("it has more than {SIZE_MAX} bytes")]
    Size,
    /// The key broker.
    #[error(transparent)]
    Resource(#[from] KeyError),
    /// Nobody to ask.
    #[error("it is a resource of the key broker, but none is configured")]
    NoProvider,
}

impl Material {
    /// A `keyPath`: `kbs:…`, `kbs+plugin:…`, `file:///path` or an absolute path.
    pub(super) fn at(text: &str) -> Result<Self, String> {
        if text.starts_with("kbs:") || text.starts_with("kbs+") {
            return ResourceUri::parse(text)
                .map(Self::Resource)
                .map_err(|error| error.to_string());
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        if path.starts_with('/') && !path.contains('\0') {
            Ok(Self::File(path.into()))
        } else {
            Err(format!(
                "its keyPath `{}` is neither an absolute path nor a `kbs:` URI",
                shown(text)
            ))
        }
    }

    /// A `keyData`: base64, or PEM as it is.
    pub(super) fn inline(text: &str, number: usize) -> Result<Self, String> {
        let bytes = if text.contains(PEM_BEGIN) {
            text.as_bytes().to_vec()
        } else {
            let packed: String = text.split_ascii_whitespace().collect();
            STANDARD
                .decode(packed)
                .map_err(|_| format!("its keyData {number} is not base64"))?
        };
        Ok(Self::Inline { number, bytes })
    }

    pub(super) fn load(
        &self,
        provider: Option<&dyn KeyProvider>,
    ) -> Result<Vec<u8>, MaterialError> {
        match self {
            Self::Inline { bytes, .. } => Ok(bytes.clone()),
            Self::File(path) => {
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes))
                    .map_err(MaterialError::File)?;
                bounded(bytes)
            }
            Self::Resource(uri) => {
                let provider = provider.ok_or(MaterialError::NoProvider)?;
                // Public keys; what else is in there is for nobody's eyes, but no key of ours.
                bounded(provider.fetch(uri)?.expose().to_vec())
            }
        }
    }
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, MaterialError> {
    if bytes.len() as u64 > SIZE_MAX {
        return Err(MaterialError::Size);
    }
    Ok(bytes)
}

impl fmt::Display for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline { number, .. } => write!(f, "keyData {number}"),
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Resource(uri) => write!(f, "`{uri}`"),
        }
    }
}
