//! A socket on which everything of one exchange is done by a deadline.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// A stream whose reads and writes end at a deadline.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Timed {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            until: Instant::now(),
        }
    }

    /// What follows ends by then.
    pub(crate) fn within(&mut self, max: Duration) {
        let now = Instant::now();
        self.until = now.checked_add(max).unwrap_or(now);
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
