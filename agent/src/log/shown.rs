//! The part of an event that the console shows.

use std::fmt::{self, Debug, Write};

use tracing::{Event, field::Field};

/// The names of fields that may leave the guest. Their values are ids and names that the
/// host sent, names of steps, sizes, times and digests; `told` is what an answer to the
/// host says of an error.
const FIELDS: [&str; 25] = [
    "bound",
    "bytes",
    "call",
    "container.id",
    "digest",
    "elapsed_ms",
    "failures",
    "image",
    "key",
    "killed",
    "layer",
    "layers",
    "manifest",
    "mib",
    "milliseconds",
    "offset",
    "origin",
    "requirements",
    "resident_kib",
    "signatures",
    "tee",
    "told",
    "uptime_ms",
    "version",
    "what",
];
/// Of a message that is not one constant text.
const WITHHELD: &str = "message withheld";
/// Most bytes of one value.
const VALUE_BYTES_MAX: usize = 1100;

/// Whether an event is of the agent's own crates. What a library says is its own, at
/// whatever level, and may hold anything.
pub(super) fn is_own(event: &Event<'_>) -> bool {
    let target = event.metadata().target();
    let start = target.split("::").next().unwrap_or_default();
    start == "agent" || start.starts_with("agent_")
}

/// What may be shown of an event, as text.
pub(super) fn shown(event: &Event<'_>) -> String {
    let mut visitor = Shown::default();
    event.record(&mut visitor);
    visitor.message + &visitor.fields
}

#[derive(Default)]
struct Shown {
    message: String,
    fields: String,
}

impl tracing::field::Visit for Shown {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = OneLine::default();
        let whole = write!(text, "{value:?}").is_ok();
        if field.name() == "message" {
            // A text that is put together of several pieces has values between them.
            let constant = whole && text.pieces <= 1;
            self.message = if constant { text.text } else { WITHHELD.into() };
        } else if FIELDS.contains(&field.name()) {
            let _ = write!(self.fields, " {}={}", field.name(), text.text);
        }
    }
}

/// Collects a text as one bounded line.
#[derive(Default)]
struct OneLine {
    text: String,
    pieces: usize,
}

impl Write for OneLine {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.pieces += 1;
        for c in piece.chars() {
            if self.text.len() + c.len_utf8() > VALUE_BYTES_MAX {
                return Err(fmt::Error);
            }
            self.text.push(if c.is_control() { ' ' } else { c });
        }
        Ok(())
    }
}
