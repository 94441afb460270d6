//! From the kernel's first process to a guest in which containers can run.
//!
//! The kernel starts the agent as `/init` in the initial root, which cannot be
//! pivoted away from and whose memory would stay taken. So the agent loads its
//! modules, copies itself to a root in memory, empties the initial one, moves over
//! and runs itself again from there. The new root is read-only: not even a process
//! that breaks out of its container can replace the agent.

mod devices;
pub(crate) mod error;
mod kernel;
mod modules;
mod mounts;
mod root;
mod tee;

use std::{os::unix::process::CommandExt, path::Path, process::Command};

use error::BootError;

use crate::log;

/// First argument of the agent once it runs from its own root.
pub const BOOTED_ARGUMENT: &str = "booted";

/// Prepares the guest and runs the agent again; returns only on failure.
#[must_use]
pub(crate) fn boot() -> BootError {
    log::report_panics();
    match prepare() {
        Ok(()) => {
            let error = Command::new(root::PROGRAM)
                .arg0("kata-agent")
                .arg(BOOTED_ARGUMENT)
                .env_clear()
                .exec();
            BootError::Run(error)
        }
        Err(error) => error,
    }
}

fn prepare() -> Result<(), BootError> {
    mounts::kernel()?;
    devices::check()?;
    modules::load(Path::new("/lib/modules/load-order"));
    // The modules are gone with the initial root, so it is now or never.
    for (feature, parameters) in agent_scratch_disk::modules() {
        let list = Path::new("/lib/modules/on-demand");
        modules::load_feature(list, feature, &parameters);
    }
    tee::prepare(Path::new("/lib/modules/on-demand"));
    kernel::close()?;
    root::build()?;
    mounts::rest(Path::new(root::NEW_ROOT))?;
    root::enter()?;
    mounts::delegate_cgroups();
    Ok(())
}
