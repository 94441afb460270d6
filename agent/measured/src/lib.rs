//! The pod's measurement log, shared by all who act.
//!
//! An entry is made before what it describes happens; if it cannot be made, it must
//! not happen. In a guest with a TPM each entry is extended into its PCR first, so that
//! the TPM's quote binds the log too. The lock is held for that and for an append or a
//! copy, never across other work.
//!
//! The log is finite and the host can ask without end. So what is in it already is counted
//! and told again at powers of two only, and each kind of entry has a share of its own:
//! no kind starves another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_evidence::{
    Sha256Digest,
    log::{ChangeEntry, Entry, Event, EventError, MeasurementLog, Operation},
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

/// Most bytes of the contents of one kind of entry. Those that the host can force by new
/// requests share less than the log holds with all its framing.
const fn share(operation: Operation) -> usize {
    const KIB: usize = 1 << 10;
    match operation {
        Operation::Container => 1024 * KIB,
        Operation::Exec => 768 * KIB,
        Operation::Image => 512 * KIB,
        Operation::Denial => 128 * KIB,
        Operation::Files => 256 * KIB,
        Operation::Change => 512 * KIB,
        Operation::Boot | Operation::Initdata | Operation::Policy => 64 * KIB,
    }
}

/// The log.
#[derive(Debug, Default)]
pub struct Measured {
    kept: Mutex<Kept>,
    register: Option<Arc<dyn Register>>,
}

#[derive(Debug, Default)]
struct Kept {
    log: MeasurementLog,
    /// Bytes of the contents of each kind.
    taken: BTreeMap<Operation, usize>,
    /// How often something was done that is in the log, by what tells it from all else.
    counts: BTreeMap<Sha256Digest, u64>,
    /// What changes again and again, by name.
    changes: BTreeMap<String, Changes>,
}

/// The changes of one thing so far.
#[derive(Debug)]
struct Changes {
    /// Of all of them, each with those before.
    digest: Sha256Digest,
    count: u64,
    /// How many of them the log knows.
    told: u64,
}

impl Measured {
    /// An empty log, whose entries are extended into this register too.
    #[must_use]
    pub fn with(register: Option<Arc<dyn Register>>) -> Self {
        let kept = Mutex::default();
        Self { kept, register }
    }

    /// Makes an entry; takes as long as the register's device does.
    ///
    /// # Errors
    ///
    /// [`NoteError`]; then what it describes must not happen.
    pub fn note(&self, entry: impl Into<Entry>) -> Result<(), NoteError> {
        let entry = entry.into();
        self.in_place(|| self.append(&mut self.lock(), &entry))
    }

    /// Counts something that may happen often, and makes an entry of it when it is new and
    /// at powers of two after that. `identity` tells it from all else, and `entry` makes the
    /// entry of a count.
    ///
    /// # Errors
    ///
    /// [`NoteError`]; then what it describes must not happen. What is in the log already
    /// never fails for lack of room.
    pub fn note_counted<E: Into<Entry>>(
        &self,
        identity: Sha256Digest,
        entry: impl FnOnce(u64) -> E,
    ) -> Result<(), NoteError> {
        self.in_place(|| {
            let mut kept = self.lock();
            let before = kept.counts.get(&identity).copied().unwrap_or_default();
            let count = before.saturating_add(1);
            if count.is_power_of_two() {
                match self.append(&mut kept, &entry(count).into()) {
                    Err(NoteError::Event(EventError::Full)) if before > 0 => {}
                    result => result?,
                }
            }
            kept.counts.insert(identity, count);
            Ok(())
        })
    }

    /// Makes an entry of something that the log tells once, however often it happens.
    ///
    /// # Errors
    ///
    /// [`NoteError`]; then what it describes must not happen.
    pub fn note_once(
        &self,
        identity: Sha256Digest,
        entry: impl Into<Entry>,
    ) -> Result<(), NoteError> {
        self.in_place(|| {
            let mut kept = self.lock();
            if !kept.counts.contains_key(&identity) {
                self.append(&mut kept, &entry.into())?;
                kept.counts.insert(identity, 1);
            }
            Ok(())
        })
    }

    /// Counts a change of something that may change often, and makes an entry of it at powers
    /// of two; of the others [`Measured::up_to_date`] tells the last.
    ///
    /// # Errors
    ///
    /// [`NoteError`]; then the change must not happen.
    pub fn note_change(&self, what: &str, change: Sha256Digest) -> Result<(), NoteError> {
        self.in_place(|| {
            let mut kept = self.lock();
            let before = kept.changes.get(what);
            let (digest, count, told) = before.map_or((Sha256Digest::ZERO, 0, 0), |before| {
                (before.digest, before.count, before.told)
            });
            let mut after = Changes {
                digest: Sha256Digest::of(&[&digest.0, &change.0]),
                count: count.saturating_add(1),
                told,
            };
            if after.count.is_power_of_two() {
                match self.append(&mut kept, &after.entry(what)) {
                    Ok(()) => after.told = after.count,
                    Err(NoteError::Event(EventError::Full)) if count > 0 => {}
                    Err(error) => return Err(error),
                }
            }
            kept.changes.insert(what.to_owned(), after);
            Ok(())
        })
    }

    /// The log so far, in which the last change of everything is told.
    ///
    /// # Errors
    ///
    /// [`NoteError`] when a change cannot be told any more.
    pub fn up_to_date(&self) -> Result<MeasurementLog, NoteError> {
        self.in_place(|| {
            let mut kept = self.lock();
            let mut changes = std::mem::take(&mut kept.changes);
            let untold = changes.iter_mut().filter(|(_, one)| one.told < one.count);
            let told = untold.map(|(what, one)| {
                self.append(&mut kept, &one.entry(what))?;
                one.told = one.count;
                Ok(())
            });
            let told = told.collect::<Result<(), NoteError>>();
            kept.changes = changes;
            told.map(|()| kept.log.clone())
        })
    }

    fn append(&self, kept: &mut Kept, entry: &Entry) -> Result<(), NoteError> {
        let (operation, event) = (entry.operation(), entry.event()?);
        let taken = kept.taken.get(&operation).copied().unwrap_or_default();
        let after = taken.saturating_add(event.content().len());
        if after > share(operation) {
            return Err(EventError::Full.into());
        }
        self.append_event(&mut kept.log, event)?;
        kept.taken.insert(operation, after);
        Ok(())
    }

    fn append_event(&self, log: &mut MeasurementLog, event: Event) -> Result<(), NoteError> {
        match &self.register {
            Some(register) => log.append_after(event, |digests| Ok(register.extend(digests)?)),
            None => Ok(log.append(event)?),
        }
    }

    /// A TPM of the host may be slow on purpose; other tasks of this thread go on.
    fn in_place<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.register {
            Some(_) => block_in_place(work),
            None => work(),
        }
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
        self.lock().log.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // An append either happened as a whole or not at all.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    fn entry(&self, what: &str) -> Entry {
        ChangeEntry {
            what: what.to_owned(),
            digest: self.digest,
            count: self.count,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::log::{DenialEntry, EventDigests, ExecDigests, ExecEntry, MAX_LOG_LEN};

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
            code: None,
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
            code: None,
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

    fn exec(number: u64) -> (Sha256Digest, impl FnOnce(u64) -> ExecEntry) {
        let process = Sha256Digest::of(&[&number.to_le_bytes()]);
        let digests = ExecDigests {
            process,
            environment: Sha256Digest::ZERO,
            rights: Sha256Digest::ZERO,
        };
        let entry = move |count| ExecEntry {
            container: "c1".to_owned(),
            digests,
            count,
        };
        (process, entry)
    }

    fn entries(log: &MeasurementLog) -> impl Iterator<Item = Entry> {
        let events = log.events().iter();
        events.map(|event| Entry::of(event).unwrap().unwrap())
    }

    fn counts(log: &Measured) -> Vec<u64> {
        entries(&log.so_far())
            .map(|entry| match entry {
                Entry::Exec(exec) => exec.count,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_probe_of_a_year_leaves_a_small_log_and_a_new_process_is_seen_at_once() {
        let log = Measured::default();
        for _ in 0..3_200_000 {
            let (identity, entry) = exec(1);
            log.note_counted(identity, entry).unwrap();
        }
        let before = counts(&log);
        assert_eq!(before.len(), 22, "{before:?}");
        assert!(log.so_far().as_bytes().len() < 64 << 10);
        let (identity, entry) = exec(2);
        log.note_counted(identity, entry).unwrap();
        assert_eq!(counts(&log).len(), 23);
    }

    #[test]
    fn no_kind_starves_another_and_what_is_known_goes_on() {
        let log = Measured::default();
        let refused = (0..).find(|number| {
            let (identity, entry) = exec(*number);
            log.note_counted(identity, entry).is_err()
        });
        let (identity, entry) = exec(refused.unwrap());
        assert!(log.note_counted(identity, entry).is_err(), "it is full");
        for _ in 0..5 {
            let (identity, entry) = exec(0);
            log.note_counted(identity, entry).unwrap();
        }
        log.note(DenialEntry {
            rule: "X".to_owned(),
            code: None,
            count: 1,
        })
        .unwrap();
        assert!(log.so_far().as_bytes().len() < MAX_LOG_LEN);
    }

    fn changes(log: &MeasurementLog) -> Vec<(String, u64)> {
        entries(log)
            .map(|entry| match entry {
                Entry::Change(change) => (change.what, change.count),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn ten_thousand_changes_take_little_room_and_evidence_tells_the_last() {
        let log = Measured::default();
        for number in 0..10_000_u64 {
            let change = Sha256Digest::of(&[&number.to_le_bytes()]);
            log.note_change("network", change).unwrap();
        }
        assert_eq!(changes(&log.so_far()).len(), 14);
        let told = log.up_to_date().unwrap();
        assert_eq!(
            changes(&told).last().unwrap(),
            &("network".to_owned(), 10_000)
        );
        // Nothing new: nothing more is told.
        assert_eq!(log.up_to_date().unwrap(), told);
    }

    #[test]
    fn a_change_depends_on_all_before_it() {
        let last = |changes: &[u8]| {
            let log = Measured::default();
            for change in changes {
                log.note_change("x", Sha256Digest([*change; 32])).unwrap();
            }
            log.up_to_date().unwrap().register()
        };
        assert_ne!(last(&[1, 2, 3]), last(&[2, 1, 3]));
    }

    #[test]
    fn a_change_that_the_log_has_no_room_for_is_not_hidden() {
        let log = Measured::default();
        let mut number = 0;
        let full = loop {
            number += 1;
            log.note_change(&format!("{number}"), Sha256Digest::ZERO)
                .ok();
            log.note_change("last", Sha256Digest([1; 32])).ok();
            if let Err(error) = log.up_to_date() {
                break error;
            }
        };
        assert!(matches!(full, NoteError::Event(EventError::Full)));
    }
}
