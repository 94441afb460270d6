//! Work for the container library, done in a process of its own.
//!
//! The library forks without executing a new program, which is not safe in a
//! process with several threads. So the agent runs itself again as a helper
//! ([`crate::helper`]) that does one job and exits; the container's process is
//! then an orphan and the agent its parent. Nothing is locked meanwhile: a slow
//! container delays nobody.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use agent_documents::parse_json;
use nix::{sys::signal::Signal, unistd::Pid};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{io::Interest, net::UnixStream, time::timeout};

use crate::{
    reaper::{Expecting, Reaper},
    stdio::WorkloadEnds,
    verdict::Verdict,
};

/// First argument of the agent when it runs as a helper.
pub const HELPER_ARGUMENT: &str = "container-job";
/// The longest message between agent and helper.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// How long a job may take; a guest without hardware help is slow.
const JOB_TIME_MAX: Duration = Duration::from_secs(60);

/// What a helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// Make a container and its stopped process.
    Create {
        /// Its id.
        id: String,
        /// Its directory, with `config.json` and `rootfs`.
        bundle: PathBuf,
        /// Where its terminal is sent, if it has one.
        console: Option<PathBuf>,
        /// Whether it may open sockets of `AF_VSOCK`.
        vsock: bool,
    },
    /// Let a created container's process run.
    Start {
        /// Its id.
        id: String,
    },
    /// Run a further process.
    Exec {
        /// The container's id.
        id: String,
        /// The process, as a file.
        process: PathBuf,
        /// Where its terminal is sent, if it has one.
        console: Option<PathBuf>,
        /// Whether it may open sockets of `AF_VSOCK`.
        vsock: bool,
    },
}

impl Job {
    pub(crate) fn may_open_vsock(&self) -> bool {
        match self {
            Self::Create { vsock, .. } | Self::Exec { vsock, .. } => *vsock,
            // Its process was made before, under a floor of its own.
            Self::Start { .. } => false,
        }
    }
}

/// What became of a job.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; the number of the process it made, or 0.
    Done {
        /// Number of the process as the agent sees it.
        pid: i32,
    },
    /// Not done.
    Failed {
        /// Why, as far as it can be told.
        refusal: Refusal,
        /// Why, in the library's words: for the guest only.
        message: String,
    },
}

/// Why the container library did not do a job, in kinds that may leave the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The program is not in the container.
    NoExecutable,
    /// It is there and may not be executed.
    NotExecutable,
    /// It has no path and the environment has no `PATH`.
    NoPath,
    /// Its working directory cannot be entered.
    WorkingDirectory,
    /// A mount of the container cannot be made.
    Mount,
    /// Anything else.
    Other,
}

/// Why a job was not done.
#[derive(Debug, Error)]
pub enum JobError {
    /// The helper could not be started.
    #[error("cannot start the container helper")]
    Spawn(#[source] io::Error),
    /// The helper could not be talked to.
    #[error("cannot talk to the container helper")]
    Talk(#[source] io::Error),
    /// The helper ended without an answer.
    #[error("container helper ended early")]
    Died,
    /// The helper took too long and was killed.
    #[error("container helper took longer than {} s", JOB_TIME_MAX.as_secs())]
    Slow,
    /// The helper sent something else than an answer.
    #[error("container helper's answer cannot be read")]
    Answer(#[source] serde_json::Error),
    /// The kernel does not run the program.
    #[error("the kernel refuses the program")]
    Program(#[source] io::Error),
    /// The container library refused.
    #[error("{message}")]
    Refused {
        /// Of which kind the reason is.
        refusal: Refusal,
        /// The library's words.
        message: String,
    },
}

/// What the process that a job makes is given.
#[derive(Debug)]
pub struct Given {
    /// Where it tells why its program does not run.
    pub verdict: OwnedFd,
    /// Its streams, unless it has a terminal.
    pub streams: Option<WorkloadEnds>,
}

impl Given {
    fn ends(&self) -> Vec<BorrowedFd<'_>> {
        let streams = self.streams.iter();
        let streams = streams.flat_map(|ends| [&ends.stdin, &ends.stdout, &ends.stderr]);
        std::iter::once(&self.verdict)
            .chain(streams)
            .map(OwnedFd::as_fd)
            .collect()
    }
}

/// Runs a job, with what is for the process if it makes one.
///
/// # Errors
///
/// [`JobError`] says at which step it failed.
pub async fn run(
    reaper: &Reaper,
    _: &Expecting,
    job: &Job,
    given: Option<Given>,
) -> Result<i32, JobError> {
    let text = serde_json::to_vec(job).map_err(JobError::Answer)?;
    let (own, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| JobError::Talk(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(HELPER_ARGUMENT)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (pid, exit) = reaper.spawn(&mut command).map_err(JobError::Spawn)?;
    // The command keeps the helper's end open, which would hide its death.
    drop(command);
    send(&own, &text, given.as_ref()).map_err(JobError::Talk)?;
    drop(given);
    let answer = timeout(JOB_TIME_MAX, receive(own, exit.wait()));
    match answer.await {
        Ok(Ok(Outcome::Done { pid })) => Ok(pid),
        Ok(Ok(Outcome::Failed { refusal, message })) => Err(JobError::Refused { refusal, message }),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            Err(JobError::Slow)
        }
    }
}

fn send(socket: &OwnedFd, text: &[u8], given: Option<&Given>) -> io::Result<()> {
    let fds = given.map(Given::ends).unwrap_or_default();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(text)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The helper's answer.
///
/// That the helper has exited may be heard before its answer is reported
/// readable: the socket is read once more before the helper is taken for dead.
async fn receive<T>(socket: OwnedFd, exited: impl Future<Output = T>) -> Result<Outcome, JobError> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true).map_err(JobError::Talk)?;
    let socket = UnixStream::from_std(socket).map_err(JobError::Talk)?;
    let answer = async {
        loop {
            socket.readable().await.map_err(JobError::Talk)?;
            match socket.try_io(Interest::READABLE, || read(&socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                bytes => return outcome(bytes),
            }
        }
    };
    tokio::select! {
        answer = answer => answer,
        _ = exited => outcome(read(&socket)),
    }
}

/// Waits until the kernel runs the program of the process that a job made or started.
///
/// # Errors
///
/// [`JobError`] says why it does not.
pub(crate) async fn runs(verdict: &Verdict) -> Result<(), JobError> {
    match timeout(JOB_TIME_MAX, verdict.runs()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(JobError::Program(error)),
        Err(_) => Err(JobError::Slow),
    }
}

fn read(socket: &UnixStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let (len, _) = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// What was said by what was read of a helper that has exited, closed its end or sent.
fn outcome(read: io::Result<Vec<u8>>) -> Result<Outcome, JobError> {
    match read {
        Ok(bytes) if bytes.is_empty() => Err(JobError::Died),
        Ok(bytes) => parse_json(&bytes).map_err(JobError::Answer),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(JobError::Died),
        Err(error) => Err(JobError::Talk(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn an_answer_counts_also_if_the_exit_is_heard_first() {
        let (own, theirs) = sockets();
        let answer = br#"{"Done":{"pid":7}}"#;
        rustix::net::send(&theirs, answer, SendFlags::NOSIGNAL).unwrap();
        let outcome = receive(own, std::future::ready(())).await.unwrap();
        assert!(matches!(outcome, Outcome::Done { pid: 7 }));
    }

    #[tokio::test]
    async fn a_helper_that_exits_without_an_answer_has_died() {
        let (own, _theirs) = sockets();
        let error = receive(own, std::future::ready(())).await.unwrap_err();
        assert!(matches!(error, JobError::Died));
    }

    #[tokio::test]
    async fn a_helper_that_closes_its_end_without_an_answer_has_died() {
        let (own, theirs) = sockets();
        drop(theirs);
        let error = receive(own, std::future::pending::<()>())
            .await
            .unwrap_err();
        assert!(matches!(error, JobError::Died));
    }
}
