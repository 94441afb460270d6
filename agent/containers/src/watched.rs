//! Owned file descriptors in the runtime's event loop.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Hands a descriptor to the event loop; it must be non-blocking.
///
/// # Errors
///
/// When the event loop cannot watch it.
#[expect(
    unsafe_code,
    reason = "the event loop must be promised a stable descriptor"
)]
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives,
    // and the `AsyncFd` owns it and leaves the event loop before dropping it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
