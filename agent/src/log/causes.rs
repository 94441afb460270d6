//! The last events in full, in the guest's memory: what the console must not show.
//!
//! Only a debug image hands them out: one whose agent is built with the feature
//! `debug-log`, which prints each on the console as it is kept. No release has it; its
//! launch measurement is another one, so an owner can tell.

use std::{
    collections::VecDeque,
    error::Error,
    fmt::{Debug, Write as _},
    sync::{Mutex, PoisonError},
};

use tracing::{
    Event,
    field::{Field, Visit},
};

/// How many are kept.
const EVENTS_MAX: usize = 128;
/// Most bytes of one.
const EVENT_BYTES_MAX: usize = 2048;
/// Begins each line by which a debug image hands out an event in full.
#[cfg(feature = "debug-log")]
const HANDED_OUT: &str = "kata-agent-debug cause: ";

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Causes(Mutex<VecDeque<String>>);

impl Causes {
    /// Keeps an event, and forgets the oldest one if there are too many.
    pub(super) fn keep(&self, event: &Event<'_>) -> Option<String> {
        let mut whole = Whole(event.metadata().target().to_owned());
        event.record(&mut whole);
        let mut text = whole.0;
        let mut end = text.len().min(EVENT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let handed_out = hand_out(&text);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= EVENTS_MAX {
            kept.pop_front();
        }
        kept.push_back(text);
        handed_out
    }
}

/// The line for the console of a debug image.
#[cfg(feature = "debug-log")]
fn hand_out(text: &str) -> Option<String> {
    Some(format!("{HANDED_OUT}{text}\n"))
}

/// A release hands out nothing.
#[cfg(not(feature = "debug-log"))]
fn hand_out(_: &str) -> Option<String> {
    None
}

struct Whole(String);

impl Visit for Whole {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        let _ = write!(self.0, " {}={error}", field.name());
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(self.0, ": {error}");
            cause = error.source();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::{Layer, Registry, layer::SubscriberExt as _};

    use super::*;

    struct Keep(Arc<Causes>);

    impl Layer<Registry> for Keep {
        fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, Registry>) {
            let _ = self.0.keep(event);
        }
    }

    #[test]
    fn causes_are_kept_in_full_and_bounded_in_number_and_length() {
        let causes = Arc::new(Causes::default());
        let subscriber = Registry::default().with(Keep(Arc::clone(&causes)));
        tracing::subscriber::with_default(subscriber, || {
            let inner = std::io::Error::other("the marker");
            let error = std::io::Error::other(inner);
            tracing::warn!(error = &error as &dyn Error, "first");
            let long = "ä".repeat(EVENT_BYTES_MAX);
            for _ in 1..EVENTS_MAX {
                tracing::warn!(long, "more");
            }
            let kept = causes.0.lock().unwrap();
            assert!(kept[0].contains("the marker"), "{}", kept[0]);
            assert!(kept.iter().all(|text| text.len() <= EVENT_BYTES_MAX));
        });
        let subscriber = Registry::default().with(Keep(Arc::clone(&causes)));
        tracing::subscriber::with_default(subscriber, || tracing::warn!("last"));
        let kept = causes.0.lock().unwrap();
        assert_eq!(kept.len(), EVENTS_MAX);
        assert!(!kept[0].contains("the marker") && kept[EVENTS_MAX - 1].contains("last"));
    }
}
