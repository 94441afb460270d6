//! Signals to a container's processes.
//!
//! They are passed on as they come. The first process of a namespace does not hear of a signal
//! that it has no handler for, except SIGKILL (pid_namespaces(7)): it lives until it is killed,
//! as with every other runtime.

use std::io;

use agent_protocol::id::ProcessId;
use agent_requests::SignalProcess;
use nix::{errno::Errno, libc};
use policy_engine::Permit;

use crate::table::{ContainerError, Containers};

impl Containers {
    /// Sends a signal; that the process has ended is no error.
    ///
    /// # Errors
    ///
    /// When there is no such process or the kernel refuses.
    pub fn signal(&self, permit: &Permit<SignalProcess>) -> Result<(), ContainerError> {
        let SignalProcess {
            container,
            process: name,
            signal,
        } = permit.request();
        let process = self.process(permit)?;
        let found = self.find(container)?;
        let init = *name == ProcessId::Init;
        let refused = |source| ContainerError::Kernel {
            action: "signal",
            container: container.clone(),
            source,
        };
        // The first process takes the rest along, also those in a shared namespace.
        if init && *signal == libc::SIGKILL {
            return found.cgroup.kill().map_err(refused);
        }
        if process.exit.status().is_some() {
            return Ok(());
        }
        match kill(process.pid, *signal) {
            Err(Errno::ESRCH) | Ok(()) => Ok(()),
            Err(error) => Err(refused(io::Error::from(error))),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "real-time signals have no name in the safe interface"
)]
fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: `kill` takes two numbers and touches no memory of this process.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}
