//! Keys that are not to be had. A key is told by its name, which the owner gave it; what
//! a key broker answers is not told.

use agent_keys::{JweKeyError, KeyError, LayerKeyError, PacketError};

use crate::told::{field::Field, text::Told};

/// A layer's key.
pub(crate) fn layer_key(error: &LayerKeyError) -> Told {
    match error {
        LayerKeyError::Missing(what) => {
            Told::new("its annotation `{what}` is missing").with(Field::what(what))
        }
        LayerKeyError::Annotation(_) => Told::new("one of its annotations cannot be read"),
        LayerKeyError::Cipher(_) => Told::new("it is encrypted with an unsupported cipher"),
        LayerKeyError::Option(what) => {
            Told::new("its encryption options lack a valid `{what}`").with(Field::what(what))
        }
        LayerKeyError::Length(length) => {
            Told::new("its encryption option `{what}` has a wrong length")
                .with(Field::what(length.member))
        }
        LayerKeyError::Wrapping(_) => Told::new(
            "its key is wrapped in a way that is not supported; encrypt it for a key provider",
        ),
        LayerKeyError::Packets { count, last } => {
            Told::new("none of its {count} wrapped keys can be unwrapped")
                .with(Field::count(*count))
                .because(packet(last))
        }
        LayerKeyError::NoPrivateKeys => Told::new(
            "its key is wrapped as JWE only, and this pull has no private key; name it in \
             `layer_private_key_uris` of initdata's cdh.toml, or encrypt the image for a key \
             provider",
        ),
        LayerKeyError::Jwe { count, cause, .. } => {
            Told::new("none of its {count} JWE opens with the private keys of this pull")
                .with(Field::count(*count))
                .because(jwe(cause))
        }
        LayerKeyError::Both { packets, jwes } => {
            Told::new("neither a key provider nor a private key opens it")
                .because(layer_key(packets).because(layer_key(jwes)))
        }
        _ => Told::new("its key cannot be unwrapped"),
    }
}

fn packet(error: &PacketError) -> Told {
    match error {
        PacketError::Key(error) => Told::new("its key cannot be fetched").because(key(error)),
        PacketError::KeyLength(uri) => {
            Told::new("key `{resource}` has not 32 bytes").with(Field::resource(uri))
        }
        PacketError::Authentication(uri) => {
            Told::new("key `{resource}` does not open it: another key was used, or it was changed")
                .with(Field::resource(uri))
        }
        PacketError::Length(length) => {
            Told::new("its packet's `{what}` has a wrong length").with(Field::what(length.member))
        }
        PacketError::NoKeyId => Told::new("its packet does not name its key"),
        PacketError::KeyId(_) => Told::new("its key id cannot be used"),
        _ => Told::new("it is not a key provider's packet of a supported kind"),
    }
}

fn jwe(error: &JweKeyError) -> Told {
    match error {
        JweKeyError::Fetch(error) => {
            Told::new("a private key cannot be fetched").because(key(error))
        }
        JweKeyError::Key { uri, .. } => {
            Told::new("private key `{resource}` cannot be used").with(Field::resource(uri))
        }
        _ => Told::new("the private keys do not open it: it is for another key, or was changed"),
    }
}

/// A resource of the owner's.
pub(crate) fn key(error: &KeyError) -> Told {
    match error {
        KeyError::Absent(uri) => Told::new(
            "there is no resource `{resource}`; check the key id the image was encrypted with",
        )
        .with(Field::resource(uri)),
        KeyError::Refused { uri, .. } => {
            Told::new("resource `{resource}` is not released to this guest")
                .with(Field::resource(uri))
        }
        KeyError::Unreachable { uri, .. } => {
            Told::new("resource `{resource}` cannot be fetched: nobody could be asked")
                .with(Field::resource(uri))
        }
        _ => Told::new("a resource cannot be fetched"),
    }
}
