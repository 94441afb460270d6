//! The streams of a process, joined to the job that makes it.

use std::{io, path::PathBuf};

use crate::{
    console::Console,
    job::{self, Given, Job, JobError},
    process::Process,
    reaper::Exit,
    stdio::{Stdio, WorkloadEnds},
    table::Containers,
    verdict::Verdict,
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
        let (verdict, told) = Verdict::pair().map_err(WiringError::Stream)?;
        let given = |streams| {
            Some(Given {
                verdict: told,
                streams,
            })
        };
        match self {
            Self::Pipes(stdio, ends) => {
                let pid = job::run(reaper, &expecting, job, given(Some(ends))).await;
                let pid = reason(pid, &verdict).await?;
                let exit = reaper.claim(&expecting, pid);
                Ok(Process::new(pid, exit, stdio, verdict))
            }
            Self::Terminal(console) => {
                let pid = job::run(reaper, &expecting, job, given(None)).await;
                let pid = reason(pid, &verdict).await?;
                let exit: Exit = reaper.claim(&expecting, pid);
                let stdio = console
                    .take()
                    .and_then(Stdio::terminal)
                    .map_err(WiringError::Stream)?;
                Ok(Process::new(pid, exit, stdio, verdict))
            }
        }
    }
}

/// Of a job that was refused the kernel's own reason, if it was the kernel that refused.
async fn reason(made: Result<i32, JobError>, verdict: &Verdict) -> Result<i32, WiringError> {
    let refused = match made {
        Err(refused @ JobError::Refused { .. }) => refused,
        made => return made.map_err(WiringError::Job),
    };
    Err(WiringError::Job(match job::runs(verdict).await {
        Err(program @ JobError::Program(_)) => program,
        _ => refused,
    }))
}
