//! Entries of the measurement log.

use agent_evidence::log::EventError;
use agent_measured::NoteError;

use crate::told::{hardware, text::Told};

/// An entry that the measurement log does not take.
pub(crate) fn note(error: &NoteError) -> Told {
    match error {
        NoteError::Event(EventError::Full) => Told::new("the measurement log is full"),
        NoteError::Event(_) => Told::new("its entry is too long or not one line"),
        NoteError::Register(error) => hardware::tpm(error),
    }
}
