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
    sync::{Mutex, OnceLock},
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{layer::SubscriberExt, reload, util::SubscriberInitExt};

const PIPE: &str = "log";

static MORE: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

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
    let (filter, handle) = reload::Layer::new(level);
    let _ = MORE.set(Box::new(move || drop(handle.reload(LevelFilter::DEBUG))));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Mutex::new(Lossy(pipe)));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "bug: panic");
    }));
}

/// Logs at debug level from now on, as the configuration may ask.
pub(crate) fn more() {
    if let Some(raise) = MORE.get() {
        raise();
    }
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
