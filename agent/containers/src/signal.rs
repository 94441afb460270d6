//! Signals to a container's processes.

use std::{fs, io};

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
        // A first process without a handler would never hear of SIGTERM.
        let lost = init && *signal == libc::SIGTERM && !hears(process.pid, libc::SIGTERM);
        let signal = if lost { libc::SIGKILL } else { *signal };
        match kill(process.pid, signal) {
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

/// Whether a process catches a signal, or waits for signals: while it waits, as
/// small inits do, the kernel shows them neither as caught nor as blocked.
fn hears(pid: i32, signal: i32) -> bool {
    let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    in_masks(&read("status"), signal) || waits_for_signals(&read("syscall"))
}

fn waits_for_signals(syscall: &str) -> bool {
    let number = syscall
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok());
    number == Some(libc::SYS_rt_sigtimedwait)
}

fn in_masks(status: &str, signal: i32) -> bool {
    let Some(bit) = u32::try_from(signal)
        .ok()
        .and_then(|signal| 1_u64.checked_shl(signal - 1))
    else {
        return false;
    };
    status
        .lines()
        .filter_map(|line| {
            line.strip_prefix("SigCgt:")
                .or(line.strip_prefix("SigBlk:"))
        })
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_waits_for_signals_hears_them() {
        let call = format!(
            "{} 0x7ffe 0x0 0x0 0x8 0x0 0x0 0x7ffe 0x4a",
            libc::SYS_rt_sigtimedwait
        );
        assert!(waits_for_signals(&call));
        for other in ["running", "", "0 0x3", "-1 0x7ffe 0x4a"] {
            assert!(!waits_for_signals(other), "{other}");
        }
    }

    #[test]
    fn masks_of_caught_and_blocked_signals_count() {
        let status =
            "SigBlk:\t0000000000000001\nSigIgn:\t0000000000000002\nSigCgt:\t0000000000004000\n";
        for (signal, expected) in [(1, true), (2, false), (15, true), (14, false), (64, false)] {
            assert_eq!(in_masks(status, signal), expected, "{signal}");
        }
    }
}
