//! The pods of `tests/pods`, each in a VM under the policy that was generated from its YAML.
//!
//! [`images`] puts images under the names that the YAML has into the bed's registry, [`owner`]
//! makes the policy, as its owner does, and [`life`] drives the pod, as a kubelet does. [`expected`]
//! says what has to come of it, and [`changes`] what a node asks for instead, and how each is denied.

mod changes;
mod expected;
mod images;
mod life;
mod owner;
mod play;

use std::path::{Path, PathBuf};

pub use changes::{CHANGES, Change, is_denied};
pub use expected::{Container, EXPECTED, End, Expected};
pub use life::{Life, Refusal};
pub use owner::Owner;

/// Where the pods are.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pods")
}
