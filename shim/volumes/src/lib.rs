//! What a container's mounts and root file system become in the guest.
//!
//! Nothing of the host is shared with the guest: files are copied, directories are made in
//! the guest, and images are pulled there. Whoever else can write to a volume is distrusted:
//! its files may change while they are read, so a volume is opened once, no link is followed,
//! and every copy is bounded.

mod copy;
pub mod guest_pull;
mod place;
mod plan;
mod refresh;
#[cfg(test)]
mod tests;
mod walk;

pub use copy::{CopyError, CopyPlan, copy};
pub use place::{Mounts, Place};
pub use plan::{VolumeError, VolumeOwner, VolumePlan, plan, shm_storage};
pub use refresh::{is_updated, refresh};
