//! The pod's measurement log, shared by all who act.
//!
//! An entry is made before what it describes happens; if it cannot be made, it must
//! not happen. The lock is held for an append or a copy, never across other work.

use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_evidence::{
    Sha256Digest,
    log::{Entry, EventError, MeasurementLog},
};
use oci_spec::runtime::Process;
use serde_json::Value;

/// The log.
#[derive(Debug, Default)]
pub struct Measured(Mutex<MeasurementLog>);

impl Measured {
    /// Makes an entry.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the log is full or the entry too long; then what it
    /// describes must not happen.
    pub fn note(&self, entry: impl Into<Entry>) -> Result<(), EventError> {
        let event = entry.into().event()?;
        self.lock().append(event).map(drop)
    }

    /// The log so far.
    #[must_use]
    pub fn so_far(&self) -> MeasurementLog {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, MeasurementLog> {
        // An append either happened as a whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digest of an OCI process: SHA-256 of its JSON with sorted keys and without
/// spaces, each set of capabilities sorted, so that equal processes have equal digests.
///
/// # Errors
///
/// When the process is no JSON; a bug.
pub fn process_digest(process: &Process) -> serde_json::Result<Sha256Digest> {
    // Maps of `serde_json` are sorted by key.
    let mut value = serde_json::to_value(process)?;
    let sets = value
        .get_mut("capabilities")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|sets| sets.values_mut())
        .filter_map(Value::as_array_mut);
    for set in sets {
        set.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    }
    Ok(Sha256Digest::of(&[&serde_json::to_vec(&value)?]))
}

#[cfg(test)]
mod tests {
    use agent_evidence::log::DenialEntry;

    use super::*;

    #[test]
    fn entries_are_made_in_order_and_a_copy_stays_as_it_was() {
        let log = Measured::default();
        let denial = |count| DenialEntry {
            rule: "X".to_owned(),
            count,
        };
        log.note(denial(1)).unwrap();
        let before = log.so_far();
        log.note(denial(2)).unwrap();
        assert_eq!(before.events().len(), 1);
        let after = log.so_far();
        let read = Entry::of(&after.events()[1]).unwrap().unwrap();
        assert_eq!(read, denial(2).into());
        assert_ne!(before.register(), after.register());
    }

    #[test]
    fn equal_processes_have_equal_digests_and_others_do_not() {
        let read = |capabilities: &str, argument: &str| {
            let text = format!(
                r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"args":["{argument}"],
                    "capabilities":{{"bounding":[{capabilities}]}}}}"#
            );
            let process: Process = serde_json::from_str(&text).unwrap();
            process_digest(&process).unwrap()
        };
        let one = read(r#""CAP_CHOWN","CAP_KILL","CAP_FOWNER","CAP_SETUID""#, "a");
        for _ in 0..8 {
            let other = read(r#""CAP_SETUID","CAP_FOWNER","CAP_KILL","CAP_CHOWN""#, "a");
            assert_eq!(one, other);
        }
        assert_ne!(one, read(r#""CAP_CHOWN""#, "a"));
        assert_ne!(
            one,
            read(r#""CAP_CHOWN","CAP_KILL","CAP_FOWNER","CAP_SETUID""#, "b")
        );
    }
}
