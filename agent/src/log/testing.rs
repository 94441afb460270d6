//! What the console would show, for tests of what logs.

use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing_subscriber::{Registry, layer::SubscriberExt as _};

use super::layer::ConsoleLayer;

/// All levels.
pub(crate) const LEVELS: [Level; 5] = [
    Level::ERROR,
    Level::WARN,
    Level::INFO,
    Level::DEBUG,
    Level::TRACE,
];

/// What the console gets while something is done.
pub(crate) fn console(level: Level, act: impl FnOnce()) -> String {
    let lines = Arc::new(Mutex::new(String::new()));
    let to = Arc::clone(&lines);
    let layer = ConsoleLayer::new(level, move |line| to.lock().unwrap().push_str(&line));
    tracing::subscriber::with_default(Registry::default().with(layer), act);
    Arc::into_inner(lines).unwrap().into_inner().unwrap()
}
