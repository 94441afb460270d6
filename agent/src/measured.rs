//! The pod's measurement log, shared by all who act.
//!
//! An entry is made before what it describes happens; if it cannot be made, it must
//! not happen. In a guest with a TPM each entry is extended into its PCR first, so that
//! the TPM's quote binds the log too. The lock is held for that and for an append or a
//! copy, never across other work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_evidence::{
    Sha256Digest,
    log::{Entry, EventError, MeasurementLog},
    tee::tpm::{Register, TpmError},
};
use oci_spec::runtime::Process;
use serde_json::Value;
use thiserror::Error;
use tokio::task::block_in_place;

/// An entry cannot be made; what it describes must not happen.
#[derive(Debug, Error)]
pub enum NoteError {
    /// The log is full or the entry too long.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The TPM does not take it.
    #[error(transparent)]
    Register(#[from] TpmError),
}

/// The log.
#[derive(Debug, Default)]
pub struct Measured {
    log: Mutex<MeasurementLog>,
    register: Option<Arc<dyn Register>>,
}

impl Measured {
    /// An empty log, whose entries are extended into this register too.
    #[must_use]
    pub fn with(register: Option<Arc<dyn Register>>) -> Self {
        let log = Mutex::default();
        Self { log, register }
    }

    /// Makes an entry; takes as long as the register's device does.
    ///
    /// # Errors
    ///
    /// [`NoteError`]; then what it describes must not happen.
    pub fn note(&self, entry: impl Into<Entry>) -> Result<(), NoteError> {
        let event = entry.into().event()?;
        let Some(register) = &self.register else {
            return Ok(self.lock().append(event)?);
        };
        // A TPM of the host may be slow on purpose; other tasks of this thread go on.
        block_in_place(|| {
            self.lock()
                .append_after(event, |digests| Ok(register.extend(digests)?))
        })
    }

    /// Extends the register of the initdata, where there is one.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; then the initdata must not be used.
    pub fn bind_initdata(&self, digest: Sha256Digest) -> Result<(), TpmError> {
        let register = self.register.as_ref();
        register.map_or(Ok(()), |register| register.extend_initdata(digest))
    }

    /// The log so far.
    #[must_use]
    pub fn so_far(&self) -> MeasurementLog {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, MeasurementLog> {
        // An append either happened as a whole or not at all.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
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
    use agent_evidence::log::{DenialEntry, EventDigests};

    use super::*;

    /// Extended as a PCR of SHA-256 is, so many times.
    #[derive(Debug)]
    struct Pcr(Mutex<(Sha256Digest, u32)>);

    impl Register for Pcr {
        fn extend(&self, digests: &EventDigests) -> Result<(), TpmError> {
            let (value, left) = &mut *self.0.lock().unwrap();
            *left = left.checked_sub(1).ok_or(TpmError::Pcrs)?;
            *value = Sha256Digest::of(&[&value.0, &digests.sha_256.0]);
            Ok(())
        }

        fn extend_initdata(&self, _: Sha256Digest) -> Result<(), TpmError> {
            unreachable!("this test has no initdata")
        }
    }

    #[test]
    fn entries_are_extended_and_one_that_cannot_be_is_not_made() {
        let pcr = Arc::new(Pcr(Mutex::new((Sha256Digest::ZERO, 2))));
        let log = Measured::with(Some(Arc::clone(&pcr) as Arc<dyn Register>));
        let denial = |count| DenialEntry {
            rule: "X".to_owned(),
            count,
        };
        log.note(denial(1)).unwrap();
        log.note(denial(2)).unwrap();
        let (value, _) = *pcr.0.lock().unwrap();
        assert_eq!(log.so_far().register_256(), value);
        let before = log.so_far();
        assert!(matches!(log.note(denial(3)), Err(NoteError::Register(_))));
        assert_eq!(log.so_far(), before);
    }

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
