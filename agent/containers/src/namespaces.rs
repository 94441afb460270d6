//! The IPC and UTS namespaces that the pod's containers share, kept open by bind
//! mounts so that they outlive every process.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use agent_requests::paths::NAMESPACE_ROOT;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::UnmountFlags;
use thiserror::Error;

/// Why the namespaces cannot be made.
#[derive(Debug, Error)]
#[error("cannot {step}")]
pub struct NamespaceError {
    /// What was tried.
    pub step: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// The pod's IPC namespace.
#[must_use]
pub fn ipc() -> PathBuf {
    Path::new(NAMESPACE_ROOT).join("ipc")
}

/// The pod's UTS namespace.
#[must_use]
pub fn uts() -> PathBuf {
    Path::new(NAMESPACE_ROOT).join("uts")
}

/// Makes the namespaces, in a thread of their own: only it enters them, and it ends.
///
/// # Errors
///
/// When the kernel refuses a step.
pub fn make(hostname: &str) -> Result<(), NamespaceError> {
    let failed = |step| move |source| NamespaceError { step, source };
    fs::create_dir_all(NAMESPACE_ROOT).map_err(failed("make a directory for namespaces"))?;
    thread::scope(|scope| {
        let work = thread::Builder::new().spawn_scoped(scope, || enter_and_keep(hostname));
        match work.map_err(failed("start a thread"))?.join() {
            Ok(result) => result,
            Err(_) => Err(NamespaceError {
                step: "run a thread",
                source: io::Error::other("it panicked"),
            }),
        }
    })
}

fn enter_and_keep(hostname: &str) -> Result<(), NamespaceError> {
    let failed = |step| move |source: io::Error| NamespaceError { step, source };
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
        .map_err(|error| failed("enter new namespaces")(error.into()))?;
    if !hostname.is_empty() {
        nix::unistd::sethostname(hostname)
            .map_err(|error| failed("set the host name")(error.into()))?;
    }
    for (name, path) in [("ipc", ipc()), ("uts", uts())] {
        // One of an earlier attempt.
        let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
        fs::File::create(&path).map_err(failed("make a file for a namespace"))?;
        rustix::mount::mount_bind(format!("/proc/thread-self/ns/{name}"), &path)
            .map_err(|error| failed("keep a namespace")(error.into()))?;
    }
    Ok(())
}
