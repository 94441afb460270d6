//! Builds the guest image: the same inputs always give the same bytes.
//!
//! A guest image is what a sandbox's VM boots: a kernel, an initrd whose `/init` is the
//! static agent, and a kernel command line. The owner of a workload trusts it because its
//! measurement can be computed beforehand, so everything here serves one property: [`build`]
//! is a function of bytes. Clocks, directory order, file times, umask and the number of
//! processors do not reach the output; what does is written to the [`manifest`] by digest.
//!
//! Inputs are chosen by the owner and trusted, but not to be well-formed: a wrong kernel, a
//! dynamic agent or a module of another kernel is refused with one sentence.
//!
//! Start with [`build`], then [`initrd`] for what the guest finds when it starts.

pub mod agent;
pub mod certificates;
pub mod cmdline;
pub mod cpio;
pub mod deb;
pub mod fetch;
pub mod igvm;
pub mod image;
pub mod initrd;
pub mod kernel;
pub mod manifest;
pub mod measure;
pub mod modules;
pub mod own_kernel;
pub mod show;

pub use image::{BuildError, Image, Recipe, build};
