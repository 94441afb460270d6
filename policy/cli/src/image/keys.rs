//! Key-encryption keys and private keys from the owner's files.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use agent_keys::{
    KeyError, KeyProvider, OfflineError, OfflineKeys, PrivateKey, PrivateKeyError, ResourceUri,
    ResourceUriError, Secret,
};
use clap::Args;
use policy_images::{PublicKey, PublicKeyError};
use zeroize::Zeroizing;

use crate::image::registry::{OptionError, read};

/// Length of a key-encryption key.
const KEY_BYTES: usize = 32;

/// Where key-encryption keys come from.
#[derive(Debug, Args)]
pub(crate) struct KeyFiles {
    /// JSON object, repository/type/tag → base64 of the key, as offline guests have it; may be given several times.
    #[arg(long = "key-file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Private keys, for layers whose key is wrapped as JWE.
#[derive(Debug, Args)]
pub(crate) struct PrivateKeyFiles {
    /// Private key that opens layer keys wrapped as JWE, PKCS#8 in PEM or DER; may be given several times.
    #[arg(long = "private-key", value_name = "FILE")]
    private_key_files: Vec<PathBuf>,
}

/// Public keys, for layers whose key is to be wrapped as JWE.
#[derive(Debug, Args)]
pub(crate) struct PublicKeyFiles {
    /// Public key, `PUBLIC KEY` in PEM, that the layers' keys are wrapped for as JWE; whoever has
    /// its private key opens the image; may be given several times.
    #[arg(long = "jwe-key", value_name = "FILE")]
    public_key_files: Vec<PathBuf>,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyOptionError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("--key-file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: OfflineError,
    },
    #[error("the key's id cannot be used")]
    Id(#[from] ResourceUriError),
    #[error(
        "{0} is in no key file; make a key with `head -c 32 /dev/urandom >FILE` and name the file, too"
    )]
    Absent(#[source] KeyError),
    #[error("cannot read key {id} from {}", path.display())]
    Read {
        id: ResourceUri,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--private-key {} cannot be used", path.display())]
    Private {
        path: PathBuf,
        #[source]
        source: PrivateKeyError,
    },
    #[error("--jwe-key {} cannot be used", path.display())]
    Public {
        path: PathBuf,
        #[source]
        source: PublicKeyError,
    },
    #[error("{} is not a file of {KEY_BYTES} bytes, which a key is", .0.display())]
    Length(PathBuf),
}

impl KeyFiles {
    /// Whether any is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// All their keys.
    pub(crate) fn load(&self) -> Result<OfflineKeys, KeyOptionError> {
        let mut keys = OfflineKeys::default();
        for path in &self.files {
            let json = Zeroizing::new(read(path)?);
            keys.add(&json).map_err(|source| KeyOptionError::File {
                path: path.clone(),
                source,
            })?;
        }
        Ok(keys)
    }
}

impl PrivateKeyFiles {
    /// Puts them among `keys`; gives the names that they have there.
    pub(crate) fn load(&self, keys: &mut OfflineKeys) -> Result<Vec<ResourceUri>, KeyOptionError> {
        let mut names = Vec::with_capacity(self.private_key_files.len());
        for (index, path) in self.private_key_files.iter().enumerate() {
            let secret = Secret::new(read(path)?);
            PrivateKey::parse(secret.expose()).map_err(|source| KeyOptionError::Private {
                path: path.clone(),
                source,
            })?;
            let name = ResourceUri::parse(&format!("kbs:///kata-cc/private-key/{index}"))?;
            keys.insert(&name, secret);
            names.push(name);
        }
        Ok(names)
    }
}

impl PublicKeyFiles {
    /// All of them.
    pub(crate) fn load(&self) -> Result<Vec<PublicKey>, KeyOptionError> {
        let parse = |path: &PathBuf| {
            PublicKey::parse(&read(path)?).map_err(|source| KeyOptionError::Public {
                path: path.clone(),
                source,
            })
        };
        self.public_key_files.iter().map(parse).collect()
    }
}

/// The key of an id: from its own file, or else from the key files.
pub(crate) fn find(
    keys: &OfflineKeys,
    id: &str,
    file: Option<&Path>,
) -> Result<(ResourceUri, Secret), KeyOptionError> {
    let id = ResourceUri::parse(id)?;
    let secret = match file {
        Some(path) => key_of_file(&id, path)?,
        None => keys.fetch(&id).map_err(KeyOptionError::Absent)?,
    };
    Ok((id, secret))
}

fn key_of_file(id: &ResourceUri, path: &Path) -> Result<Secret, KeyOptionError> {
    let failed = |source| KeyOptionError::Read {
        id: id.clone(),
        path: path.to_owned(),
        source,
    };
    // A pipe would keep us waiting.
    let mut options = File::options();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let file = options.open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() || facts.len() != KEY_BYTES as u64 {
        return Err(KeyOptionError::Length(path.to_owned()));
    }
    let mut bytes = Vec::with_capacity(KEY_BYTES);
    file.take(KEY_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn private_keys_are_checked_when_they_are_read_and_found_by_their_names() {
        let vectors = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../agent/keys/tests/vectors/jwe"
        );
        let load = |names: &[&str], keys: &mut OfflineKeys| {
            let files = names.iter().map(|name| Path::new(vectors).join(name));
            let private_key_files = files.collect();
            PrivateKeyFiles { private_key_files }.load(keys)
        };
        let mut keys = OfflineKeys::default();
        let names = load(&["rsa-2048.pem", "p256.pem"], &mut keys).unwrap();
        let found = keys.fetch(&names[1]).unwrap();
        assert_eq!(
            found.expose(),
            fs::read(Path::new(vectors).join("p256.pem")).unwrap()
        );
        let refused = load(&["p256.pem", "encrypted.pem"], &mut keys).unwrap_err();
        assert!(refused.to_string().contains("encrypted.pem"), "{refused}");
        assert!(matches!(
            refused,
            KeyOptionError::Private {
                source: PrivateKeyError::Encrypted,
                ..
            }
        ));
        let absent = load(&["none.pem"], &mut keys).unwrap_err();
        assert!(matches!(absent, KeyOptionError::Option(_)));
    }

    #[test]
    fn a_private_key_is_not_taken_for_a_public_one() {
        let vectors = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../agent/keys/tests/vectors/jwe"
        );
        let load = |name: &str| {
            let public_key_files = vec![Path::new(vectors).join(name)];
            PublicKeyFiles { public_key_files }.load()
        };
        assert_eq!(load("p256.pub.pem").unwrap().len(), 1);
        let refused = load("p256.pem").unwrap_err();
        assert!(matches!(
            &refused,
            KeyOptionError::Public {
                source: PublicKeyError::Pem,
                ..
            }
        ));
        assert!(refused.to_string().contains("--jwe-key"), "{refused}");
    }

    #[test]
    fn a_key_comes_from_its_own_file_or_a_key_file_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let raw = directory.path().join("raw");
        fs::write(&raw, [7; 32]).unwrap();
        let mut keys = OfflineKeys::default();
        keys.add(br#"{"default/key/1":"a2V5"}"#).unwrap();
        let (id, key) = find(&keys, "/default/key/2", Some(&raw)).unwrap();
        assert_eq!(
            (id.to_string().as_str(), key.expose()),
            ("kbs:///default/key/2", &[7; 32][..])
        );
        assert_eq!(
            find(&keys, "/default/key/1", None).unwrap().1.expose(),
            b"key"
        );
        let absent = find(&keys, "/default/key/2", None).unwrap_err();
        assert!(matches!(absent, KeyOptionError::Absent(_)));
        fs::write(&raw, [7; 31]).unwrap();
        let short = find(&keys, "/default/key/2", Some(&raw)).unwrap_err();
        assert!(matches!(short, KeyOptionError::Length(_)));
        let id = find(&keys, "key", None).unwrap_err();
        assert!(matches!(id, KeyOptionError::Id(_)));
    }
}
