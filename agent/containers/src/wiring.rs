//! The streams of a process, joined to the job that makes it.

use std::{io, path::PathBuf};

use crate::{
    console::Console,
    job::{self, Job, JobError},
    process::Process,
    reaper::Exit,
    stdio::{Stdio, WorkloadEnds},
    table::Containers,
};

/// The streams of a process that is about to be made.
pub(super) enum Wiring {
    Pipes(Stdio, WorkloadEnds),
    Terminal(Console),
}

/// A process with its streams cannot be made.
pub(super) enum WiringError {
    Job(JobError),
    Stream(io::Error),
}

impl Wiring {
    pub(super) fn make(
        containers: &Containers,
        owner: (u32, u32),
        terminal: bool,
    ) -> io::Result<Self> {
        if terminal {
            return Console::listen(containers.serial()).map(Self::Terminal);
        }
        let (stdio, ends) = Stdio::pipes(owner, containers.pipe_size)?;
        Ok(Self::Pipes(stdio, ends))
    }

    pub(super) fn console_path(&self) -> Option<PathBuf> {
        match self {
            Self::Pipes(..) => None,
            Self::Terminal(console) => Some(console.path().to_owned()),
        }
    }

    pub(super) async fn run(
        self,
        containers: &Containers,
        job: &Job,
    ) -> Result<Process, WiringError> {
        let reaper = &containers.reaper;
        let expecting = reaper.expecting();
        match self {
            Self::Pipes(stdio, ends) => {
                let pid = job::run(reaper, &expecting, job, Some(ends)).await;
                let pid = pid.map_err(WiringError::Job)?;
                Ok(Process::new(pid, reaper.claim(&expecting, pid), stdio))
            }
            Self::Terminal(console) => {
                let pid = job::run(reaper, &expecting, job, None)
                    .await
                    .map_err(WiringError::Job)?;
                let exit: Exit = reaper.claim(&expecting, pid);
                let stdio = console
                    .take()
                    .and_then(Stdio::terminal)
                    .map_err(WiringError::Stream)?;
                Ok(Process::new(pid, exit, stdio))
            }
        }
    }
}
