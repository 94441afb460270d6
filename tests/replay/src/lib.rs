//! What a kubelet asked of a node, asked again: of a real containerd, with runc and with
//! kata-cc, and what came of it compared.
//!
//! The recordings in `recordings/` say what a kubelet 1.36 did for 17 pods, and in which order;
//! tests that are written from specifications miss that. [`play`] makes the node's disk as
//! it was, speaks the calls, and looks into each container with a probe. What runc gives is the
//! expectation.

mod bundle;
mod disk;
mod driver;
mod facts;
mod image;
mod kubelet;
mod listing;
pub mod page;
pub mod pods;
mod recording;
mod schema;
mod stage;
mod status;
mod table;
mod verdict;
mod wire;

pub use bundle::{normal, recorded};
pub use driver::{Outcome, play};
pub use facts::{ABSENT, Differing, Facts, differing, matches};
pub use kubelet::{Known, Objects, container_config, sandbox_config};
pub use recording::{PODS, VARIANTS};
pub use stage::{Played, Stage, at_once, judge, play_what_depends_on};
pub use status::unlike_recorded;
pub use table::{DIFFERENCES, DIFFERENCES_OF_1_7, Difference, FAULTS, Fault, Here, SAME};
pub use verdict::{Must, Verdict, unspoken, verdict};
