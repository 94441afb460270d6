//! `/dev/tpmrm0`, with a deadline for each command.
//!
//! The kernel answers a command that was written without blocking by making the file
//! readable (Linux 5.0, `drivers/char/tpm/tpm-dev-common.c`).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::error::TpmError;

const DEVICE: &str = "/dev/tpmrm0";
/// Signing takes a TPM the longest: some seconds in the slowest.
const DEADLINE: Duration = Duration::from_secs(20);

/// The kernel's resource-managed TPM.
#[derive(Debug)]
pub struct TpmDevice {
    file: File,
    /// A response has not come: the next read could get it for another command.
    is_lost: bool,
}

impl TpmDevice {
    /// Opens it; `None` if the kernel has no TPM.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be opened.
    pub fn open() -> Result<Option<Self>, TpmError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(DEVICE);
        match opened {
            Ok(file) => Ok(Some(Self {
                file,
                is_lost: false,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TpmError::Open(error)),
        }
    }

    fn wait(&self) -> io::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut files = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut files, timeout) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Write for TpmDevice {
    fn write(&mut self, command: &[u8]) -> io::Result<usize> {
        if self.is_lost {
            return Err(io::Error::other("an earlier response never came"));
        }
        self.file.write(command)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for TpmDevice {
    fn read(&mut self, response: &mut [u8]) -> io::Result<usize> {
        // Until it has come.
        self.is_lost = true;
        self.wait()?;
        let length = self.file.read(response)?;
        self.is_lost = false;
        Ok(length)
    }
}
