//! Why a layer's key cannot be had, in words that its image's owner can act upon.

use std::error::Error;

use crate::{
    JweError, KeyError, LengthError, PrivateKeyError, ResourceUri, annotations::CIPHER,
    packet::PacketError,
};

/// Why a layer's key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerKeyError {
    /// An annotation that is absent.
    #[error("its annotation `{0}` is missing")]
    Missing(&'static str),
    /// An annotation that is not what it should be.
    #[error("its annotation `{0}` cannot be read")]
    Annotation(String),
    /// A cipher we have not.
    #[error("it is encrypted with `{0}`, but only {CIPHER} is supported")]
    Cipher(String),
    /// An option without which nothing can be decrypted or checked.
    #[error("its encryption options lack a valid `{0}`")]
    Option(&'static str),
    /// An option of another length.
    #[error("of its encryption options, {0}")]
    Length(LengthError),
    /// Wrapped, but in other ways.
    #[error(
        "its key is wrapped for {0} only, which is not supported; encrypt it for a key provider"
    )]
    Wrapping(String),
    /// No packet unwrapped; this is what the last one said.
    #[error("none of its {count} wrapped keys can be unwrapped")]
    Packets {
        /// How many there are.
        count: usize,
        /// Why the last one failed.
        #[source]
        last: PacketError,
    },
    /// JWE only, and nothing to open it with.
    #[error(
        "its key is wrapped as JWE only, and this pull has no private key; name it in \
         `layer_private_key_uris` of initdata's cdh.toml (`--private-key` of `kata-cc image \
         pull`), or encrypt the image for a key provider"
    )]
    NoPrivateKeys,
    /// No JWE opened; this is what explains it best.
    #[error("none of its {count} JWE opens with the {keys} private keys of this pull")]
    Jwe {
        /// How many there are.
        count: usize,
        /// How many private keys there are.
        keys: usize,
        /// What was wrong with a private key, or with the last JWE.
        #[source]
        cause: JweKeyError,
    },
    /// Wrapped both ways, and neither was of use.
    #[error("{}; and by JWE neither", chain(packets.as_ref()))]
    Both {
        /// Why no packet unwrapped.
        packets: Box<LayerKeyError>,
        /// Why no JWE opened.
        #[source]
        jwes: Box<LayerKeyError>,
    },
}

/// Why one JWE, or a private key, is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JweKeyError {
    /// A private key that the pull should have.
    #[error("a private key cannot be fetched")]
    Fetch(#[source] KeyError),
    /// What was fetched is no private key.
    #[error("private key `{uri}` cannot be used")]
    Key {
        /// Its name.
        uri: ResourceUri,
        /// What is wrong with it.
        #[source]
        source: PrivateKeyError,
    },
    /// Not base64.
    #[error("it is not base64")]
    Base64,
    /// The JWE.
    #[error(transparent)]
    Jwe(#[from] JweError),
    /// What was wrapped is not options.
    #[error("what it wraps is not encryption options")]
    Options,
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
