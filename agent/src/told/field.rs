//! The named values that may leave the guest: this list is all of them.
//!
//! Each has a constructor that takes the type it is made of, so that the text of an error,
//! of a file or of a library fits into none. A value is an id or a name that the host
//! sent, a name in the pod's own image or key configuration, a digest, a number, a step
//! that the code names, or the kernel's name of a failure.

use std::{borrow::Cow, fmt::Display, io};

use agent_evidence::{HostData, Sha256Digest};
use agent_image_registry::{Digest, Reference};
use agent_keys::ResourceUri;
use agent_protocol::{
    id::{ContainerId, ExecId},
    path::GuestPath,
};
use nix::errno::Errno;
use policy_engine::Denied;

/// Most bytes of one value.
const VALUE_BYTES_MAX: usize = 256;

/// A value that may be told, with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// A text that the host itself sent in the request that is answered: it learns nothing
/// from hearing it again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromHost<'a>(pub(crate) &'a str);

/// A name in the guest image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfGuestImage<'a>(pub(crate) &'a str);

impl Field {
    fn of(name: &'static str, value: impl Display) -> Self {
        let mut value: String = value.to_string();
        value = value
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        truncate(&mut value, VALUE_BYTES_MAX);
        Self { name, value }
    }
}

/// Shortens a text to so many bytes, at a character's border.
pub(crate) fn truncate(text: &mut String, max: usize) {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

impl Display for OfGuestImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl Display for FromHost<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)*) => {
        impl Field {
            $($(#[$doc])*
            pub(crate) fn $name(value: $kind) -> Self {
                Self::of(stringify!($name), value)
            })*
        }
    };
}

fields! {
    /// A container.
    container: &ContainerId;
    /// A process that was started by request.
    exec: &ExecId;
    /// The image that was asked for.
    image: &Reference;
    /// What the host sent for an image reference.
    image_text: FromHost<'_>;
    /// The number of a layer, from the bottom.
    layer: usize;
    /// The number of layers, requirements, keys or processes.
    count: usize;
    /// The digest of a blob.
    digest: &Digest;
    /// The digest that was asked for.
    expected: &Digest;
    /// The digest of what came.
    found: &Digest;
    /// The digest of a policy.
    policy: Sha256Digest;
    /// The digest of initdata, as the host delivered it.
    initdata: FromHost<'_>;
    /// What the launch binds.
    bound: HostData;
    /// What the launch would have to bind.
    fitted: HostData;
    /// Whom the guest asked: a registry's address, which the image's reference or the
    /// owner's configuration names.
    registry: &str;
    /// A key, by the name that the image or the owner gives it.
    resource: &ResourceUri;
    /// A number of bytes.
    bytes: u64;
    /// A number of bytes that was expected.
    stated: u64;
    /// A limit.
    limit: u64;
    /// A number of seconds.
    seconds: u64;
    /// A status of HTTP.
    status: u16;
    /// A size in MiB.
    mib: u64;
    /// A number that hardware gave for its failure.
    code: u32;
    /// The step that failed, as the code names it.
    step: &'static str;
    /// The part of the guest, of an image or of a request that is meant, as the code names it.
    what: &'static str;
    /// A call of the protocol.
    call: &'static str;
    /// A path that the host sent.
    path: &GuestPath;
    /// A path, name or type that the host sent.
    sent: FromHost<'_>;
    /// A directory of the guest that is the same in every guest.
    place: &'static str;
    /// The user that a container was to run as, by the name that the host sent.
    user: FromHost<'_>;
    /// The program that a container was to run, as the host sent it.
    executable: FromHost<'_>;
    /// The name of a disk.
    disk: FromHost<'_>;
    /// A part of the guest image, which is measured and public.
    part: OfGuestImage<'_>;
    /// The address that a card was to have, or an interface's name.
    interface: FromHost<'_>;
    /// The kernel's name of a failure.
    kernel: Cow<'static, str>;
}

impl Field {
    /// The kernel's name of why an operation failed; of an error that a library made,
    /// only its kind.
    pub(crate) fn errno(error: &io::Error) -> Self {
        Self::kernel(errno(error))
    }

    /// What the policy does not allow. A denial holds nothing that may not be told, and it is
    /// bounded.
    pub(crate) fn denied(denied: &Denied) -> Self {
        Self {
            name: "denied",
            value: denied.to_string(),
        }
    }
}

fn errno(error: &io::Error) -> Cow<'static, str> {
    if let Some(number) = error.raw_os_error() {
        return Errno::from_raw(number).desc().into();
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or_else(|| error.kind().to_string().into(), errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_s_text_becomes_its_kind() {
        let told = |error| Field::errno(&error).value;
        let system = || io::Error::from_raw_os_error(28);
        assert_eq!(told(system()), "No space left on device");
        assert_eq!(told(io::Error::other(system())), "No space left on device");
        assert_eq!(told(io::Error::other("marker")), "other error");
    }

    #[test]
    fn a_value_is_one_bounded_line() {
        let long = format!("a\nb{}", "ä".repeat(VALUE_BYTES_MAX));
        let value = Field::user(FromHost(&long)).value;
        assert!(value.starts_with("a b") && value.len() <= VALUE_BYTES_MAX);
    }
}
