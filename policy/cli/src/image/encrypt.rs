//! `kata-cc image encrypt`: an image whose layers only a proven guest can read.

use agent_keys::{ResourceUri, Secret};
use clap::{ArgGroup, Args, ValueEnum};
use policy_images::{EncryptError, Encryption, PacketVersion, Place, encrypt};

use crate::image::{
    keys::{KeyFiles, KeyOptionError, PublicKeyFiles, find},
    registry::{OptionError, RegistryOptions},
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
pub(crate) enum EncryptCommandError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Key(#[from] KeyOptionError),
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
}

/// Encrypts the image.
pub(crate) fn run(options: &Options) -> Result<(), EncryptCommandError> {
    let encryption = Encryption {
        recipients: recipients(options)?,
        public_keys: options.public_keys.load()?,
        version: match options.packet {
            Version::One => PacketVersion::One,
            Version::Two => PacketVersion::Two,
        },
        layers: &options.layers,
    };
    let config = options.registry.config()?;
    let source = options.source.source(&config);
    let target = options.target.target(&config);
    let encrypted = encrypt(
        &encryption,
        source.map_err(EncryptError::Source)?,
        options.source.version().as_deref(),
        target.map_err(EncryptError::Target)?,
        options.target.version().as_deref(),
    )?;
    eprintln!("kata-cc: encrypted {} layers", encrypted.layers);
    println!("{}", encrypted.digest);
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
