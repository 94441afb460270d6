//! The one place that waits for processes.
//!
//! As PID 1 the agent inherits every orphan of the guest, so no library may wait
//! on its own: one loop collects every exit and hands it to whoever expects it. A
//! container's process is born in a helper that reports its number only later, and
//! may be gone by then; while anybody is [`Reaper::expecting`], exits that nobody
//! claimed are therefore kept.

use std::{
    collections::HashMap,
    io,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The exit status of a process: its code, or 128 and the signal's number.
pub type ExitStatus = i32;

/// The end of one process, now or later.
#[derive(Debug, Clone)]
pub struct Exit(watch::Receiver<Option<ExitStatus>>);

impl Exit {
    /// The status, if the process has ended.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        *self.0.borrow()
    }

    /// Waits for the end.
    pub async fn wait(&self) -> ExitStatus {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(UNKNOWN_STATUS),
            Err(_) => UNKNOWN_STATUS,
        }
    }
}

/// Reported when the reaper itself is gone.
const UNKNOWN_STATUS: ExitStatus = 255;

#[derive(Debug, Default)]
struct Table {
    waiters: HashMap<i32, watch::Sender<Option<ExitStatus>>>,
    unclaimed: HashMap<i32, ExitStatus>,
    expecting: usize,
}

/// Hands exits to those who wait for them.
#[derive(Debug, Clone, Default)]
pub struct Reaper(Arc<Mutex<Table>>);

/// While this lives, exits that nobody claimed are kept.
#[derive(Debug)]
pub struct Expecting(Reaper);

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.expecting = table.expecting.saturating_sub(1);
        if table.expecting == 0 {
            table.unclaimed.clear();
        }
    }
}

impl Reaper {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces that processes will be born whose numbers are not known yet.
    #[must_use]
    pub fn expecting(&self) -> Expecting {
        self.table().expecting += 1;
        Expecting(self.clone())
    }

    /// The end of a process that was born while this [`Expecting`] lived.
    #[must_use]
    pub fn claim(&self, _: &Expecting, pid: i32) -> Exit {
        let mut table = self.table();
        let (sender, receiver) = watch::channel(table.unclaimed.remove(&pid));
        if receiver.borrow().is_none() {
            table.waiters.insert(pid, sender);
        }
        Exit(receiver)
    }

    /// Starts a program and claims its end; the program may not change its user or
    /// run code before it starts, because then the standard library would wait too.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(i32, Exit)> {
        let expecting = self.expecting();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok((pid, self.claim(&expecting, pid)))
    }

    /// Collects exits for as long as the agent lives.
    ///
    /// # Errors
    ///
    /// When the signal cannot be subscribed to.
    pub async fn run(self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            self.collect();
            if children.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn collect(&self) {
        loop {
            let status = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                // A real-time signal has no name in the library; the process is gone.
                Err(Errno::EINVAL) | Err(Errno::EINTR) | Ok(_) => continue,
                Err(_) => return,
            };
            self.ended(status.0.as_raw(), status.1);
        }
    }

    pub(crate) fn ended(&self, pid: i32, status: ExitStatus) {
        let mut table = self.table();
        match table.waiters.remove(&pid) {
            Some(waiter) => {
                waiter.send_replace(Some(status));
            }
            None if table.expecting > 0 => {
                table.unclaimed.insert(pid, status);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exit_before_the_claim_is_not_lost() {
        let reaper = Reaper::default();
        let expecting = reaper.expecting();
        reaper.ended(7, 3);
        assert_eq!(reaper.claim(&expecting, 7).wait().await, 3);
    }

    #[tokio::test]
    async fn every_waiter_hears_of_an_exit() {
        let reaper = Reaper::default();
        let exit = reaper.claim(&reaper.expecting(), 8);
        let others = [exit.clone(), exit.clone()];
        assert_eq!(exit.status(), None);
        reaper.ended(8, 137);
        for exit in others {
            assert_eq!(exit.wait().await, 137);
        }
    }

    #[test]
    fn nothing_is_kept_once_nobody_expects() {
        let reaper = Reaper::default();
        let expecting = reaper.expecting();
        reaper.ended(9, 0);
        drop(expecting);
        reaper.ended(10, 0);
        assert!(reaper.table().unclaimed.is_empty());
    }
}
