//! Settings of the pod's network and IPC namespaces, which the guest makes itself: the
//! network is the guest's own, the IPC namespace is entered for as long as it takes.

use std::{fs, io, io::Write, path::Path, thread};

use agent_requests::Sysctl;
use nix::sched::{CloneFlags, setns};
use policy_engine::workload::SYSCTLS_FOR_ALL;
use thiserror::Error;

use crate::namespaces;

/// Why a setting cannot be made.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// The kernel has no such setting, or refuses the value.
    #[error("sysctl {key:?} cannot be set")]
    Set {
        /// The setting.
        key: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The pod's IPC namespace cannot be entered.
    #[error("cannot enter the pod's IPC namespace")]
    Enter(#[source] io::Error),
}

/// Makes those for all and then the settings, in a thread of its own: only it enters the namespace, and it ends.
///
/// # Errors
///
/// [`SysctlError`] names the first setting that cannot be made.
pub(crate) fn set(settings: &[Sysctl]) -> Result<(), SysctlError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, || enter_and_set(settings))
            .map_err(SysctlError::Enter)?
            .join()
            .unwrap_or_else(|_| Err(SysctlError::Enter(io::Error::other("the thread panicked"))))
    })
}

fn enter_and_set(settings: &[Sysctl]) -> Result<(), SysctlError> {
    let ipc = fs::File::open(namespaces::ipc()).map_err(SysctlError::Enter)?;
    setns(ipc, CloneFlags::CLONE_NEWIPC).map_err(|error| SysctlError::Enter(error.into()))?;
    let set = |key: &str, value: &str| {
        write(key, value).map_err(|source| SysctlError::Set {
            key: key.to_owned(),
            source,
        })
    };
    SYSCTLS_FOR_ALL
        .iter()
        .try_for_each(|(key, value)| set(key, value))?;
    settings
        .iter()
        .try_for_each(|one| set(&one.key, &one.value))
}

fn write(key: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys").join(key.replace('.', "/"));
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}
