//! One process of the workload: its state, streams and end.
//!
//! The state is guarded by a lock that is held for a moment only, never across a
//! call to the guest: transitions in progress are states of their own. The end is
//! decided once, by whoever learns of it first, and everybody else waits for it on a
//! watch channel.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use containerd_shim_protos::{api::Status, protobuf::well_known_types::timestamp::Timestamp};
use shim_agent_client::{AgentClient, GuestProcess};
use shim_oci as oci;
use tokio::sync::watch;

use crate::{
    status::TaskError,
    stdio::{Pumps, StdinKeeper, Stdio},
};

/// Exit code when nobody can tell, as containerd expects.
pub(crate) const UNKNOWN_EXIT: u32 = 255;
/// Exit code of a process that was killed before it ran (128 + SIGKILL).
pub(crate) const KILLED_EXIT: u32 = 137;
/// How long output may stand still after the process is gone.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exit {
    /// Exit code, or 128 + signal.
    pub(crate) status: u32,
    /// The time at which it ended.
    pub(crate) at: Timestamp,
}

/// Where a process is in its life, as long as it has no [`Exit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The process is made and not started.
    Created,
    /// `Start` is under way.
    Starting,
    /// The process runs.
    Running,
    /// `Pause` is under way, or done.
    Paused,
    /// `Delete` is under way.
    Deleting,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Deleting => "being deleted",
        }
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    stdin_closed: bool,
    keeper: Option<StdinKeeper>,
    pumps: Option<Pumps>,
    size: Option<(u32, u32)>,
}

/// A process: a container's first or a further one.
#[derive(Debug)]
pub(crate) struct Process {
    /// How the guest knows it.
    pub(crate) guest: GuestProcess,
    /// Its streams.
    pub(crate) stdio: Stdio,
    /// What to run, for a further process; `None` for the container's first.
    pub(crate) exec: Option<oci::Process>,
    state: Mutex<State>,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    /// A process that is made but not started.
    pub(crate) fn new(guest: GuestProcess, stdio: Stdio, exec: Option<oci::Process>) -> Self {
        Self {
            guest,
            stdio,
            exec,
            state: Mutex::new(State {
                phase: Phase::Created,
                stdin_closed: false,
                keeper: None,
                pumps: None,
                size: None,
            }),
            exit: watch::Sender::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn what(&self) -> (&'static str, String) {
        if self.guest.exec.is_empty() {
            ("container", self.guest.container.clone())
        } else {
            ("exec", self.guest.exec.clone())
        }
    }

    /// The error of a request that this state does not allow.
    pub(crate) fn precondition(&self, needed: &'static str) -> TaskError {
        let (what, id) = self.what();
        let state = if self.ended().is_some() {
            "stopped"
        } else {
            self.state().phase.name()
        };
        TaskError::Precondition {
            what,
            id,
            state,
            needed,
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Exit {
        let mut receiver = self.exit.subscribe();
        let ended = receiver.wait_for(Option::is_some).await;
        match ended.ok().and_then(|exit| exit.clone()) {
            Some(exit) => exit,
            // The sender lives as long as `self`.
            None => Exit {
                status: UNKNOWN_EXIT,
                at: Timestamp::now(),
            },
        }
    }

    /// Decides the end; answers with it if this call was the first.
    pub(crate) fn finish(&self, status: u32) -> Option<Exit> {
        let exit = Exit {
            status,
            at: Timestamp::now(),
        };
        let first = self.exit.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(exit.clone());
            }
            first
        });
        first.then_some(exit)
    }

    /// The phase, whether it has ended or not.
    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// containerd's name of the state.
    pub(crate) fn status(&self) -> Status {
        if self.ended().is_some() {
            return Status::STOPPED;
        }
        match self.phase() {
            Phase::Created | Phase::Starting => Status::CREATED,
            Phase::Running | Phase::Deleting => Status::RUNNING,
            Phase::Paused => Status::PAUSED,
        }
    }

    /// Moves from one phase to another, unless it has ended or is elsewhere.
    pub(crate) fn move_on(&self, from: Phase, to: Phase) -> bool {
        let mut state = self.state();
        let fits = state.phase == from && self.exit.borrow().is_none();
        if fits {
            state.phase = to;
        }
        fits
    }

    /// Begins deleting: allowed once, and only if nothing runs.
    pub(crate) fn begin_delete(&self) -> Result<Phase, TaskError> {
        let mut state = self.state();
        let before = state.phase;
        let still = self.exit.borrow().is_none() && before != Phase::Created;
        if still || before == Phase::Deleting {
            drop(state);
            return Err(self.precondition("kill it and wait for its end before deleting it"));
        }
        state.phase = Phase::Deleting;
        Ok(before)
    }

    /// Takes back [`Process::begin_delete`].
    pub(crate) fn abort_delete(&self, before: Phase) {
        self.state().phase = before;
    }

    /// Whether the input was closed before the process started.
    pub(crate) fn stdin_closed(&self) -> bool {
        self.state().stdin_closed
    }

    /// Closes the shim's end of the input.
    pub(crate) fn close_stdin(&self) {
        let mut state = self.state();
        state.stdin_closed = true;
        state.keeper = None;
    }

    /// Keeps the running streams.
    pub(crate) fn attach(&self, keeper: Option<StdinKeeper>, pumps: Pumps) {
        let mut state = self.state();
        state.keeper = keeper.filter(|_| !state.stdin_closed);
        state.pumps = Some(pumps);
    }

    /// Notes the terminal's size for a process that has not started.
    pub(crate) fn remember_size(&self, row: u32, column: u32) {
        self.state().size = Some((row, column));
    }

    /// The noted size.
    pub(crate) fn take_size(&self) -> Option<(u32, u32)> {
        self.state().size.take()
    }

    fn take_pumps(&self) -> Option<Pumps> {
        self.state().pumps.take()
    }

    /// Waits for the guest's word that the process ended, and for its output to have
    /// reached containerd. Answers with the exit code, and does not decide the end.
    pub(crate) async fn outcome(self: &Arc<Self>, agent: &AgentClient) -> u32 {
        let status = match agent.wait(&self.guest).await {
            Ok(status) => status.into(),
            Err(error) => {
                tracing::warn!(%error, "exit code unknown");
                UNKNOWN_EXIT
            }
        };
        if let Some(mut pumps) = self.take_pumps() {
            pumps.drain(DRAIN_PATIENCE).await;
        }
        self.state().keeper = None;
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        let guest = GuestProcess {
            container: "c1".into(),
            exec: String::new(),
        };
        let stdio = Stdio {
            stdin: String::new(),
            stdout: String::new(),
            stderr: String::new(),
            terminal: false,
        };
        Process::new(guest, stdio, None)
    }

    #[test]
    fn the_end_is_decided_once() {
        let process = process();
        assert_eq!(process.finish(3).map(|exit| exit.status), Some(3));
        assert_eq!(process.finish(4), None);
        assert_eq!(process.ended().map(|exit| exit.status), Some(3));
        assert_eq!(process.status(), Status::STOPPED);
    }

    #[tokio::test]
    async fn everybody_waits_for_the_same_end() {
        let process = Arc::new(process());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let process = Arc::clone(&process);
                tokio::spawn(async move { process.wait().await.status })
            })
            .collect();
        process.finish(7);
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 7);
        }
    }

    #[test]
    fn phases_follow_one_another_only() {
        let process = process();
        assert!(!process.move_on(Phase::Running, Phase::Paused));
        assert!(process.move_on(Phase::Created, Phase::Starting));
        assert!(!process.move_on(Phase::Created, Phase::Starting));
        assert!(process.move_on(Phase::Starting, Phase::Running));
        assert!(process.begin_delete().is_err());
        process.finish(0);
        assert!(!process.move_on(Phase::Running, Phase::Paused));
        assert!(process.begin_delete().is_ok());
        assert!(process.begin_delete().is_err());
    }

    #[test]
    fn a_created_process_can_be_deleted() {
        let process = process();
        assert_eq!(process.begin_delete().unwrap(), Phase::Created);
    }
}
