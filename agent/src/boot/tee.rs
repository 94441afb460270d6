//! What the guest needs to ask its own hardware for reports: the driver, and the file
//! system through which the kernel offers it.
//!
//! Only in a guest that needs it. A failure is reported and passed over here: the
//! agent finds a TEE whose reports cannot be had, and refuses everything.

use std::path::Path;

use rustix::mount::MountFlags;

use super::modules;
use crate::{log, told::Told};

/// The kernel makes this device in a SEV-SNP guest, whether the driver is there or not.
const DEVICE: &str = "/sys/bus/platform/devices/sev-guest";
const FEATURE: &str = "sev-guest";
/// Made by the configfs module.
const CONFIGFS: &str = "/sys/kernel/config";

/// Loads the driver in a guest that has the hardware.
pub(super) fn prepare(features: &Path) {
    if !Path::new(DEVICE).exists() {
        return;
    }
    modules::load_feature(features, FEATURE, "");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(error) = rustix::mount::mount("configfs", CONFIGFS, "configfs", flags, None) {
        log::say(&Told::new("configfs not mounted").errno(&error.into()));
    }
}
