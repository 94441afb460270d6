//! A pod's YAML and its images → the policy document that allows that pod and nothing else.
//!
//! The owner of a workload runs this, on a machine of the owner's; registries and YAML from
//! elsewhere are not trusted to be well-formed, and are read with bounds. Nothing of it is in the
//! guest: what is written here is judged there by `policy/engine`.
//!
//! * [`Text`] and [`Reading`] are the owner's files and how they are read (`yaml`, `pod`, `inputs`);
//! * [`Images`] turns the names of images into manifests' digests and configurations;
//! * [`generate()`] derives a [`Policy`] for each pod (`derive`);
//! * [`annotated`] puts it into the files, [`patch`] into a patch for kustomize.

mod annotate;
mod derive;
mod expansion;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod generate;
mod image_files;
mod images;
mod inputs;
mod objects;
mod pod;
mod problem;
mod quantity;
mod sha256;
mod users;
mod yaml;

pub use annotate::{AnnotateError, annotated, annotations, images_by_tag, patch};
pub use derive::{Choices, Secrets};
pub use expansion::{Piece, expand, pieces};
pub use generate::{Generated, Policy, generate};
pub use image_files::FilesError;
pub use images::{Cache, Image, ImageError, Images, Platform};
pub use inputs::{InputError, Reading, Text};
pub use problem::{Problem, Problems, Severity};
pub use quantity::Quantity;
pub use users::Users;
