//! How old the guest is.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the guest's kernel started.
pub(crate) fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}
