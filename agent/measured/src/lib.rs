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
}
