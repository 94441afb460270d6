//! One process that the host asked for, and its streams.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_requests::{CloseStdin, ReadStream, TtyWinResize, WaitProcess, WriteStdin};
use policy_engine::Permit;
use thiserror::Error;

use crate::{
    job::{self, JobError},
    reaper::{Exit, ExitStatus},
    stdio::{Output, Stdio},
    table::lock,
    verdict::Verdict,
};

/// A process in a container.
#[derive(Debug)]
pub struct Process {
    pub(super) pid: i32,
    pub(super) exit: Exit,
    /// Whether its program runs, until that is known.
    verdict: Mutex<Option<Verdict>>,
    stdio: Stdio,
    discarding: Discarding,
}

/// Which outputs are read by nobody but the agent.
#[derive(Debug, Default)]
struct Discarding {
    stdout: AtomicBool,
    stderr: AtomicBool,
}

/// A stream cannot be used.
#[derive(Debug, Error)]
pub enum StreamError {
    /// Nobody reads it any more.
    #[error("standard input is closed")]
    Closed,
    /// The process has no terminal.
    #[error("process has no terminal")]
    NoTerminal,
    /// The kernel refused.
    #[error("stream cannot be used")]
    Kernel(#[source] io::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Kernel(error),
        }
    }
}

impl Process {
    pub(super) fn new(pid: i32, exit: Exit, stdio: Stdio, verdict: Verdict) -> Self {
        Self {
            pid,
            exit,
            verdict: Some(verdict).into(),
            stdio,
            discarding: Discarding::default(),
        }
    }

    /// Sets the size that its terminal starts with; without one the kernel's is as good.
    pub(super) fn set_size(&self, (rows, columns): (u16, u16)) {
        let _ = self.stdio.resize(rows, columns);
    }

    /// Waits until the kernel runs its program; to be asked once.
    ///
    /// # Errors
    ///
    /// [`JobError`] says why it does not.
    pub(super) async fn runs(&self) -> Result<(), JobError> {
        let verdict = lock(&self.verdict).take();
        match verdict {
            Some(verdict) => job::runs(&verdict).await,
            None => Ok(()),
        }
    }

    /// Waits for its end.
    pub async fn wait(&self, _: &Permit<WaitProcess>) -> ExitStatus {
        self.exit.wait().await
    }

    /// Writes to its standard input; no bytes close it.
    ///
    /// # Errors
    ///
    /// When the input is closed.
    pub async fn write(&self, permit: &Permit<WriteStdin>) -> Result<usize, StreamError> {
        let bytes = &permit.request().bytes;
        if bytes.is_empty() {
            self.stdio.close_stdin().await;
        } else {
            self.stdio.write(bytes).await?;
        }
        Ok(bytes.len())
    }

    /// Closes its standard input.
    pub async fn close_stdin(&self, _: &Permit<CloseStdin>) {
        self.stdio.close_stdin().await;
    }

    /// Reads some of its output; no bytes mean the end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn read(
        &self,
        permit: &Permit<ReadStream>,
        output: Output,
    ) -> Result<Vec<u8>, StreamError> {
        Ok(self
            .stdio
            .read(output, permit.request().len, &self.exit)
            .await?)
    }

    /// Lets its output run dry, so that it does not block on a reader who may not
    /// read.
    pub(crate) fn discard(self: Arc<Self>, output: Output) {
        let flag = match output {
            Output::Stdout => &self.discarding.stdout,
            Output::Stderr => &self.discarding.stderr,
        };
        if !flag.swap(true, Ordering::Relaxed) {
            tokio::spawn(async move { self.stdio.discard(output, &self.exit).await });
        }
    }

    /// Lets it go on while the host reads nothing of its output; ends with it.
    pub(crate) async fn let_go_when_unread(&self, patience: Duration, say: impl Fn(Output, u64)) {
        tokio::select! {
            () = self.stdio.let_go_when_unread(patience, say) => {}
            _ = self.exit.wait() => {}
        }
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn resize(&self, permit: &Permit<TtyWinResize>) -> Result<(), StreamError> {
        let request = permit.request();
        if !self.stdio.resize(request.rows, request.columns)? {
            return Err(StreamError::NoTerminal);
        }
        Ok(())
    }
}
