//! What a container's mounts and root file system become in the guest.
//!
//! Nothing of the host is shared with the guest: files are copied, directories are made in
//! the guest, and images are pulled there. Whoever else can write to a volume is distrusted:
//! its files may change while they are read, so a volume is opened once, no link is followed,
//! and every copy is bounded.

mod copy;
mod empty_dir;
mod error;
pub mod guest_pull;
mod kubelet;
mod mountinfo;
mod place;
mod plan;
#[cfg(test)]
mod plan_tests;
mod pod;
mod refresh;
#[cfg(test)]
mod tests;
mod walk;

pub use copy::{CopyError, CopyPlan, copy_all};
pub use error::VolumeError;
pub use place::{Mounts, Place};
pub use plan::{VolumeOwner, VolumePlan, plan, shm_storage};
pub use pod::{Copied, PodVolumes};
pub use refresh::{is_updated, refresh};
