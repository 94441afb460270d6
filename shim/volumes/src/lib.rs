//! What a container's mounts and root file system become in the guest.
//!
//! Nothing of the host is shared with the guest: files are copied, directories are made in
//! the guest, and images are pulled there. The host's files may change while they are
//! read, so links are never followed inside a volume and every copy is bounded.

mod copy;
pub mod guest_pull;
mod plan;
mod refresh;

pub use copy::{CopyError, CopyPlan, copy};
pub use plan::{VolumeError, VolumeOwner, VolumePlan, plan, shm_storage};
pub use refresh::{is_updated, refresh};
