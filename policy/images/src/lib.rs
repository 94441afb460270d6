//! What the owner does with images: reads them, encrypts them, pushes them.
//!
//! The guest has none of this: it reads what is written here. The machine is the owner's
//! and trusted; images and registries are not, so that digests of what is read are
//! checked.
//!
//! * [`Place`] is where an image is: a layout, an archive of one (`layout`), or a registry
//!   (`remote` and `push`);
//! * [`encrypt()`] makes an encrypted image of a plain one, with `manifest` and `cipher`;
//! * [`wrap()`] puts a layer's key where only a proven guest finds it: for key-encryption
//!   keys in a `packet`, for a [`PublicKey`] in a `jwe`.

mod cipher;
mod document;
mod encrypt;
mod jwe;
mod layout;
mod manifest;
mod packet;
mod place;
mod public_key;
mod push;
mod remote;
mod seal_error;
mod wrap;

pub use document::Document;
pub use encrypt::{EncryptError, Encrypted, Encryption, encrypt};
pub use jwe::seal as seal_jwe;
pub use layout::LayoutError;
pub use manifest::ManifestError;
pub use packet::{PacketVersion, seal as seal_packet};
pub use place::{Place, PlaceError, PlaceNameError, Source, Target};
pub use public_key::{PublicKey, PublicKeyError};
pub use remote::RemoteError;
pub use seal_error::SealError;
pub use wrap::wrap;
