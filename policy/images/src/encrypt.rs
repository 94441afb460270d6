//! An image whose layers only a proven guest can read, made from a plain one.
//!
//! Each chosen layer is encrypted with a key and nonce of its own, drawn from the
//! system; that key is wrapped for each of the key-encryption keys and public keys. The
//! configuration, with its diff ids, stays as it is and in clear. The result is
//! what the Confidential Containers tools make, so their guests read it too; what is
//! wrapped for a public key is what skopeo makes, and reads.

use agent_image_registry::Digest;
use agent_keys::{ResourceUri, Secret};
use serde_json::Value;

use crate::{
    Document, PacketVersion, PlaceError, PublicKey, SealError, Source, Target,
    cipher::Encrypting,
    manifest::{self, Descriptor, ManifestError},
    wrap,
};

/// What is encrypted, and for whom.
pub struct Encryption<'a> {
    /// Key-encryption keys; each of them opens the image.
    pub recipients: Vec<(ResourceUri, Secret)>,
    /// Public keys; each of their private keys opens the image.
    pub public_keys: Vec<PublicKey>,
    /// The form of what is wrapped for key-encryption keys.
    pub version: PacketVersion,
    /// Layers to encrypt, 1 at the bottom, -1 at the top; all if there are none.
    pub layers: &'a [i64],
}

/// What an encryption has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// How many layers were encrypted.
    pub layers: usize,
}

/// Why an image was not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// Reading.
    #[error("the source")]
    Source(#[source] PlaceError),
    /// Writing.
    #[error("the destination")]
    Target(#[source] PlaceError),
    /// A manifest or index.
    #[error("manifest {digest} of the source cannot be encrypted")]
    Manifest {
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: ManifestError,
    },
    /// A layer that is none, or is encrypted already.
    #[error("layer {number} cannot be encrypted")]
    Layer {
        /// Counted from the bottom, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: ManifestError,
    },
    /// A layer with other bytes than those named.
    #[error("layer {number} has the digest {found}, but the manifest says {expected}")]
    Digest {
        /// Counted from the bottom, from 1.
        number: usize,
        /// The manifest's.
        expected: Digest,
        /// That of its bytes.
        found: Digest,
    },
    /// A layer's key.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Encrypts the image `version` of `source` into `tag` of `target`.
///
/// # Errors
/// See [`EncryptError`]; blobs that are in the target already stay there.
pub fn encrypt(
    encryption: &Encryption<'_>,
    source: Source,
    version: Option<&str>,
    target: Target,
    tag: Option<&str>,
) -> Result<Encrypted, EncryptError> {
    let mut work = Work {
        encryption,
        source,
        target,
        encrypted: 0,
    };
    let root = work.source.root(version).map_err(EncryptError::Source)?;
    let (media_type, bytes) = work.document(&root)?;
    work.target
        .finish(tag, &media_type, &bytes)
        .map_err(EncryptError::Target)?;
    Ok(Encrypted {
        digest: Digest::sha256(&bytes),
        layers: work.encrypted,
    })
}

/// All that the work needs.
struct Work<'a> {
    encryption: &'a Encryption<'a>,
    source: Source,
    target: Target,
    encrypted: usize,
}

impl Work<'_> {
    /// The encrypted form of a manifest or index; what it names is in the target.
    fn document(&mut self, document: &Document) -> Result<(String, Vec<u8>), EncryptError> {
        let failed = |source| EncryptError::Manifest {
            digest: document.digest.clone(),
            source,
        };
        let mut json = manifest::parse(document).map_err(failed)?;
        if let Some(entries) = manifest::entries(&json).map_err(failed)? {
            for (index, entry) in entries.into_iter().enumerate() {
                let found = self.source.document(entry.digest.as_str());
                let found = found.map_err(EncryptError::Source)?;
                let found = found.ok_or_else(|| {
                    EncryptError::Source(PlaceError::Absent(entry.digest.to_string()))
                })?;
                // What is no image, such as an attestation, stays as it is.
                let (media_type, bytes) = if manifest::is_image(&found.bytes) {
                    self.document(&found)?
                } else {
                    (entry.media_type.clone(), self.copy_all(&found)?)
                };
                self.target
                    .put_document(&media_type, &bytes)
                    .map_err(EncryptError::Target)?;
                manifest::set_entry(&mut json, index, &media_type, &bytes);
            }
            return Ok(manifest::finish_index(json));
        }
        self.image(&mut json, failed)?;
        Ok(manifest::finish_manifest(json))
    }

    fn image(
        &mut self,
        json: &mut Value,
        failed: impl Fn(ManifestError) -> EncryptError,
    ) -> Result<(), EncryptError> {
        let (config, layers) = manifest::parts(json).map_err(&failed)?;
        let chosen = manifest::choose(self.encryption.layers, layers.len()).map_err(&failed)?;
        self.copy(&config)?;
        for (index, layer) in layers.iter().enumerate() {
            if !chosen.contains(&index) {
                self.copy(layer)?;
                continue;
            }
            let (descriptor, annotations) = self.encrypt(index + 1, layer)?;
            manifest::set_layer(json, index, &descriptor, annotations);
            self.encrypted += 1;
        }
        Ok(())
    }

    fn encrypt(
        &self,
        number: usize,
        layer: &Descriptor,
    ) -> Result<(Descriptor, Vec<(String, String)>), EncryptError> {
        let media_type = manifest::encrypted_type(&layer.media_type)
            .map_err(|source| EncryptError::Layer { number, source })?;
        let draft = self.target.draft().map_err(EncryptError::Target)?;
        let mut encrypting = Encrypting::new(draft, &layer.digest)?;
        self.source
            .blob(&layer.digest, layer.size, &mut encrypting)
            .map_err(EncryptError::Source)?;
        let encrypted = encrypting.finish();
        if encrypted.inner != layer.digest {
            return Err(EncryptError::Digest {
                number,
                expected: layer.digest.clone(),
                found: encrypted.inner,
            });
        }
        let Encryption {
            recipients,
            public_keys,
            version,
            ..
        } = self.encryption;
        let annotations = wrap(&encrypted.key, recipients, *version, public_keys)?;
        self.target
            .put(&encrypted.digest, encrypted.draft)
            .map_err(EncryptError::Target)?;
        let descriptor = Descriptor {
            media_type,
            digest: encrypted.digest,
            size: encrypted.size,
        };
        Ok((descriptor, annotations.into_iter().collect()))
    }

    /// Copies a blob, or what claims to be it: a wrong one is for the guest to refuse.
    fn copy(&self, blob: &Descriptor) -> Result<(), EncryptError> {
        let mut draft = self.target.draft().map_err(EncryptError::Target)?;
        self.source
            .blob(&blob.digest, blob.size, &mut draft)
            .map_err(EncryptError::Source)?;
        self.target
            .put(&blob.digest, draft)
            .map_err(EncryptError::Target)
    }

    fn copy_all(&self, document: &Document) -> Result<Vec<u8>, EncryptError> {
        for blob in manifest::blobs(&document.bytes) {
            self.copy(&blob)?;
        }
        Ok(document.bytes.clone())
    }
}
