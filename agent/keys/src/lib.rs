//! Keys that the owner releases to a proven guest.
//!
//! Whoever needs a key asks a [`KeyProvider`] for a [`ResourceUri`]; where the key
//! comes from is the provider's business. [`OfflineKeys`] reads a file,
//! [`Cached`] asks another provider once per key. [`LayerKey`] is what such a key
//! unwraps for an encrypted image layer: a [`Packet`] with a key-encryption key, or a
//! [`Jwe`] with a [`PrivateKey`].
//!
//! Names of resources and wrapped keys come with images, so they are hostile:
//! they are parsed into bounded types, and a key that does not unwrap them
//! authentically is no key. Keys themselves are never printed, and are zeroised
//! when dropped.

pub mod annotations;
mod cached;
pub mod ecdh;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod jwe;
mod layer;
mod length;
mod offline;
mod packet;
pub mod pem;
mod private_key;
mod resource;
mod secret;

pub use cached::Cached;
pub use jwe::{Jwe, JweError, JweRecipient};
pub use layer::{JweKeyError, LayerKey, LayerKeyError, Recipient};
pub use length::LengthError;
pub use offline::{OfflineError, OfflineKeys};
pub use packet::{Packet, PacketError};
pub use private_key::{PrivateKey, PrivateKeyError};
pub use resource::{ResourceUri, ResourceUriError};
pub use secret::Secret;

/// A place that keys come from.
pub trait KeyProvider: Send + Sync {
    /// Fetches one resource. Blocks, within a deadline of the provider's own;
    /// called from several threads at once.
    ///
    /// # Errors
    /// There is no such resource, or it is not released to this guest.
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError>;
}

impl<P: KeyProvider + ?Sized> KeyProvider for std::sync::Arc<P> {
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
        (**self).fetch(uri)
    }
}

/// Why a key is not to be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nobody knows it.
    #[error("there is no resource `{0}`; check the key id the image was encrypted with")]
    Absent(ResourceUri),
    /// It exists, but not for us.
    #[error("resource `{uri}` is not released to this guest: {reason}")]
    Refused {
        /// What was asked for.
        uri: ResourceUri,
        /// The other side's reason.
        reason: String,
    },
    /// Nobody could be asked.
    #[error("resource `{uri}` cannot be fetched: {reason}")]
    Unreachable {
        /// What was asked for.
        uri: ResourceUri,
        /// What happened.
        reason: String,
    },
}
