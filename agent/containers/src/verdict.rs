//! What the kernel says of a workload's program, told by the process that is to become it.
//!
//! The process holds the writing end of a pipe that closes when it becomes the program:
//! the end of the pipe without a word means that it runs, or was killed before.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::errno::Errno;
use tokio::io::{Interest, unix::AsyncFd};

use crate::watched::watch;

const BYTES: usize = size_of::<i32>();

/// The agent's end.
#[derive(Debug)]
pub(super) struct Verdict(AsyncFd<OwnedFd>);

impl Verdict {
    /// The agent's end, and that of the process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let reader = OwnedFd::from(reader);
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((Self(watch(reader)?), writer.into()))
    }

    /// Waits until the program runs.
    ///
    /// # Errors
    ///
    /// The kernel's reason why it does not.
    pub(super) async fn runs(&self) -> io::Result<()> {
        let mut word = [0; BYTES];
        let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut word)?);
        match self.0.async_io(Interest::READABLE, read).await? {
            BYTES => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(word))),
            _ => Ok(()),
        }
    }
}

/// Tells the agent why the program does not run. Nobody hears of it if that fails.
pub(super) fn tell(verdict: impl AsFd, errno: Errno) {
    let word = (errno as i32).to_ne_bytes();
    let _ = rustix::io::write(verdict, &word);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_means_that_it_runs_and_a_word_why_it_does_not() {
        let (verdict, process) = Verdict::pair().unwrap();
        drop(process);
        assert!(verdict.runs().await.is_ok());
        let (verdict, process) = Verdict::pair().unwrap();
        tell(&process, Errno::ENOEXEC);
        drop(process);
        let error = verdict.runs().await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOEXEC));
    }
}
