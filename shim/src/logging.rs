//! Logs for containerd.
//!
//! containerd reads the pipe `log` in the bundle and copies it to its own log. It may
//! be restarted or be slow: the pipe is opened for reading and writing, so that it
//! outlives its reader, and a line that does not fit is dropped, for a shim must
//! never block on its log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    sync::Mutex,
};

use tracing::level_filters::LevelFilter;

const PIPE: &str = "log";

/// Sends this process's log to the pipe of the bundle in the working directory; without
/// a pipe there is no log.
pub(crate) fn start(debug: bool) {
    let Some(pipe) = open() else {
        return;
    };
    let level = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(level)
        .with_writer(Mutex::new(Lossy(pipe)))
        .init();
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "bug: panic");
    }));
}

fn open() -> Option<File> {
    let pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(PIPE)
        .ok()?;
    pipe.metadata().ok()?.file_type().is_fifo().then_some(pipe)
}

/// Drops what the pipe does not take.
struct Lossy(File);

impl Write for Lossy {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
