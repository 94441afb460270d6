//! Signals as a program expects them at its start.
//!
//! Rust's start-up code ignores SIGPIPE, and what is ignored stays so over `exec`:
//! a workload such as `yes | head` would never end.

#![expect(
    unsafe_code,
    reason = "sigaction has no safe form, as handlers may do anything; no handler is set here"
)]

use nix::sys::signal::{SigHandler, Signal, signal};

/// Lets a broken pipe end the programs that this process starts, and this process.
pub(super) fn reset() {
    // SAFETY: the default disposition runs no code of this process.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
