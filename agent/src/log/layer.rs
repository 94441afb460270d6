//! Where all events pass on their way to the console.

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, layer::Context};

use super::{causes::Causes, shown, uptime::uptime};

/// Shows of each event what may leave the guest, and keeps all of it in memory.
pub(super) struct ConsoleLayer<F> {
    level: Level,
    causes: Causes,
    line: F,
}

impl<F: Fn(String)> ConsoleLayer<F> {
    /// Gives the lines of events that are at least this important to `line`.
    pub(super) fn new(level: Level, line: F) -> Self {
        Self {
            level,
            causes: Causes::default(),
            line,
        }
    }
}

impl<S: Subscriber, F: Fn(String) + 'static> Layer<S> for ConsoleLayer<F> {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.level
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(handed_out) = self.causes.keep(event) {
            (self.line)(handed_out);
        }
        if shown::is_own(event) {
            let now = uptime();
            (self.line)(format!(
                "kata-agent {}.{:03} {:>5} {}\n",
                now.as_secs(),
                now.subsec_millis(),
                event.metadata().level().as_str(),
                shown::shown(event)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, io};

    use super::*;
    use crate::log::testing::{LEVELS, console};

    #[test]
    fn listed_fields_are_shown_as_ever_and_others_are_not() {
        let text = console(Level::INFO, || {
            tracing::info!(container.id = %"c1", resident_kib = 7, path = "/x", "container started");
            tracing::info!(tee = "none", "no initdata");
            tracing::debug!("not this one");
        });
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        assert!(
            first.starts_with("kata-agent ") && first.contains("  INFO "),
            "{first}"
        );
        assert!(
            first.ends_with(" container started container.id=c1 resident_kib=7"),
            "{first}"
        );
        assert!(lines.next().unwrap().ends_with(" no initdata tee=\"none\""));
        assert_eq!(lines.next(), None);
    }

    #[cfg(not(feature = "debug-log"))]
    #[test]
    fn no_marker_reaches_the_console_at_any_level() {
        let error = || io::Error::other(io::Error::other("MARKER"));
        for level in LEVELS {
            let text = console(level, || {
                let error = error();
                tracing::error!(%error, "display");
                tracing::warn!(?error, "debug");
                tracing::warn!(error = &error as &dyn Error, "chain");
                tracing::info!(path = "/MARKER", environment = "X=MARKER", "fields");
                tracing::debug!(value = "MARKER", "message with {}", error);
                tracing::trace!("{} and {error}", "MARKER");
                tracing::error!(target: "ureq::unit", "a library's MARKER");
                tracing::error!(target: "agentless", call = "MARKER", "another's");
            });
            assert!(!text.contains("MARKER"), "{level}: {text}");
            assert!(text.contains(" display"), "{level}: {text}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let text = console(Level::INFO, || {
            tracing::info!(told = %"a\nkata-agent 1.000  INFO forged", "failed");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
