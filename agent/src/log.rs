//! The guest's log: one line an event, on the console, for whoever runs the node.
//!
//! The host reads it, so events have constant texts and fields that are ids, step
//! names and times. The host may also stop reading; a console that stalls must not
//! stall the agent, so lines go through a bounded queue to a thread of their own
//! and are dropped when it is full.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use tracing::Level;
use tracing_subscriber::fmt::{MakeWriter, format::Writer, time::FormatTime};

/// Lines that may wait for the console.
const QUEUE_LINES: usize = 256;
const STACK_BYTES: usize = 64 << 10;

/// Time since the guest's kernel started.
#[must_use]
pub fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

struct Uptime;

impl FormatTime for Uptime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = uptime();
        write!(
            writer,
            "kata-agent {}.{:03}",
            now.as_secs(),
            now.subsec_millis()
        )
    }
}

#[derive(Clone)]
struct Lines(SyncSender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Starts the log and reports panics through it; what a panic says may hold
/// anything, so only its place is told.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn start(level: Level) -> io::Result<()> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(QUEUE_LINES);
    let mut console: Box<dyn Write + Send> = match console() {
        Some(console) => Box::new(console),
        None => Box::new(io::stderr()),
    };
    thread::Builder::new()
        .name("log".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            for line in receiver {
                let _ = console.write_all(&line);
            }
        })?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_timer(Uptime)
        .with_writer(Lines(sender))
        .finish();
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    report_panics();
    Ok(())
}

/// Reports panics on the console at once.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let (file, line) = panic
            .location()
            .map_or(("?", 0), |at| (at.file(), at.line()));
        say(&format!("kata-agent panicked at {file}:{line}"));
    }));
}

/// Writes a line to the console, past the queue: for the agent's last words.
pub fn say(line: &str) {
    if let Some(mut console) = console() {
        let _ = writeln!(console, "{line}");
    } else {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

fn console() -> Option<std::fs::File> {
    let as_init = std::process::id() == 1;
    as_init
        .then(|| OpenOptions::new().write(true).open("/dev/console").ok())
        .flatten()
}
