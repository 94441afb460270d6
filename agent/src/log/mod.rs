//! The guest's log: one line an event, on the console, for whoever runs the node.
//!
//! The host reads it, so it gets what an answer gets: constant texts, and the values of
//! fields whose names are on a list ([`shown`]). All else that an event holds, such as the
//! chain of an error's causes, goes to a bounded ring in the guest's memory ([`causes`]),
//! which a release hands out to nobody.
//!
//! The host may also stop reading; a console that stalls must not stall the agent, so
//! lines go through a bounded queue to a thread of their own and are dropped when it is
//! full.

mod causes;
mod layer;
mod shown;
#[cfg(test)]
pub(crate) mod testing;
mod uptime;

use std::{
    fs::OpenOptions,
    io::{self, Write},
    sync::mpsc::sync_channel,
    thread,
};

use layer::ConsoleLayer;
use tracing::Level;
use tracing_subscriber::{Registry, layer::SubscriberExt as _};
pub(crate) use uptime::uptime;

use crate::told::Told;

/// Lines that may wait for the console.
const QUEUE_LINES: usize = 256;
const STACK_BYTES: usize = 64 << 10;

/// Starts the log and reports panics through it; what a panic says may hold
/// anything, so only its place is told.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn start(level: Level) -> io::Result<()> {
    let (sender, receiver) = sync_channel::<String>(QUEUE_LINES);
    let mut console: Box<dyn Write + Send> = match console() {
        Some(console) => Box::new(console),
        None => Box::new(io::stderr()),
    };
    thread::Builder::new()
        .name("log".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            for line in receiver {
                let _ = console.write_all(line.as_bytes());
            }
        })?;
    let layer = ConsoleLayer::new(level, move |line| {
        let _ = sender.try_send(line);
    });
    tracing::subscriber::set_global_default(Registry::default().with(layer))
        .map_err(io::Error::other)?;
    report_panics();
    Ok(())
}

/// Reports panics on the console at once.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let (file, line) = panic
            .location()
            .map_or(("?", 0), |at| (at.file(), at.line()));
        write(format_args!("kata-agent panicked at {file}:{line}"));
    }));
}

/// Writes a line to the console, past the queue: for the agent's first and last words.
pub(crate) fn say(told: &Told) {
    write(format_args!("kata-agent: {told}"));
}

fn write(line: std::fmt::Arguments<'_>) {
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
