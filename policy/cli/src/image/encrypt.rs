//! `kata-cc image encrypt`: an image whose layers only a proven guest can read.
//!
//! Each chosen layer is encrypted with a key and nonce of its own, drawn from the
//! system; that key is wrapped for each of the key-encryption keys and public keys. The
//! configuration, with its diff ids, stays as it is and in clear. The result is
//! what the Confidential Containers tools make, so their guests read it too; what is
//! wrapped for a public key is what skopeo makes, and reads.

mod cipher;
mod manifest;

use agent_image::Digest;
use agent_keys::{PacketVersion, PublicKey, ResourceUri, SealError, Secret};
use cipher::Encrypting;
use clap::{ArgGroup, Args, ValueEnum};
use manifest::{Descriptor, ManifestError};
use serde_json::Value;

use crate::image::{
    keys::{KeyFiles, KeyOptionError, PublicKeyFiles, find},
    place::{Document, Place, PlaceError, Source, Target},
    registry::RegistryOptions,
};

/// Encrypt the layers of an image for the guests that a key is released to.
///
/// SRC and DST are `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or docker://REF. An image for
/// several platforms is encrypted for all of them. Encryption changes the digest:
/// sign afterwards.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("recipients").args(["keys", "public_key_files"]).required(true).multiple(true)))]
pub(crate) struct Options {
    /// Image to encrypt.
    #[arg(value_name = "SRC")]
    source: Place,
    /// Where the encrypted image goes.
    #[arg(value_name = "DST")]
    target: Place,
    /// Id of a key-encryption key, kbs:///repository/type/tag, that a key file has or FILE
    /// holds as 32 bytes; each of several opens the image.
    #[arg(long = "key", value_name = "ID[=FILE]")]
    keys: Vec<String>,
    #[command(flatten)]
    key_files: KeyFiles,
    #[command(flatten)]
    public_keys: PublicKeyFiles,
    /// Layer to encrypt, 1 at the bottom, -1 at the top; all unless given; may be given several times.
    #[arg(long = "layer", value_name = "N", allow_negative_numbers = true)]
    layers: Vec<i64>,
    /// Version of the wrapped keys' format; every guest reads the first.
    #[arg(long, value_enum, default_value = "1")]
    packet: Version,
    #[command(flatten)]
    registry: RegistryOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "1")]
    One,
    #[value(name = "2")]
    Two,
}

/// Why an image was not encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncryptError {
    #[error(transparent)]
    Key(#[from] KeyOptionError),
    #[error("the source")]
    Source(#[source] PlaceError),
    #[error("the destination")]
    Target(#[source] PlaceError),
    #[error("manifest {digest} of the source cannot be encrypted")]
    Manifest {
        digest: Digest,
        #[source]
        source: ManifestError,
    },
    #[error("layer {number} cannot be encrypted")]
    Layer {
        number: usize,
        #[source]
        source: ManifestError,
    },
    #[error("layer {number} has the digest {found}, but the manifest says {expected}")]
    Digest {
        number: usize,
        expected: Digest,
        found: Digest,
    },
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// All that the work needs.
struct Work<'a> {
    source: Source,
    target: Target,
    recipients: Vec<(ResourceUri, Secret)>,
    public_keys: Vec<PublicKey>,
    version: PacketVersion,
    layers: &'a [i64],
    encrypted: usize,
}

/// Encrypts the image.
pub(crate) fn run(options: &Options) -> Result<(), EncryptError> {
    let mut work = Work {
        recipients: recipients(options)?,
        public_keys: options.public_keys.load()?,
        source: options
            .source
            .source(&options.registry)
            .map_err(EncryptError::Source)?,
        target: options
            .target
            .target(&options.registry)
            .map_err(EncryptError::Target)?,
        version: match options.packet {
            Version::One => PacketVersion::One,
            Version::Two => PacketVersion::Two,
        },
        layers: &options.layers,
        encrypted: 0,
    };
    let version = options.source.version();
    let root = work
        .source
        .root(version.as_deref())
        .map_err(EncryptError::Source)?;
    let (media_type, bytes) = work.document(&root)?;
    let tag = options.target.version();
    work.target
        .finish(tag.as_deref(), &media_type, &bytes)
        .map_err(EncryptError::Target)?;
    eprintln!("kata-cc: encrypted {} layers", work.encrypted);
    println!("{}", Digest::sha256(&bytes));
    Ok(())
}

fn recipients(options: &Options) -> Result<Vec<(ResourceUri, Secret)>, KeyOptionError> {
    let keys = options.key_files.load()?;
    let parse = |text: &String| {
        let (id, file) = match text.split_once('=') {
            Some((id, file)) => (id, Some(file.as_ref())),
            None => (text.as_str(), None),
        };
        find(&keys, id, file)
    };
    options.keys.iter().map(parse).collect()
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
                let (media_type, bytes) = match manifest::is_image(&found.bytes) {
                    true => self.document(&found)?,
                    false => (entry.media_type.clone(), self.copy_all(&found)?),
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
        let chosen = manifest::choose(self.layers, layers.len()).map_err(&failed)?;
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
        let annotations = encrypted
            .key
            .wrap(&self.recipients, self.version, &self.public_keys)?;
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
