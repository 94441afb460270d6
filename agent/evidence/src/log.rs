//! The measurement log: what the guest did, in order, before it did it.
//!
//! Entries are TCG2 events (TCG PC client firmware profile, `TCG_PCR_EVENT2`) around
//! CoCo's attestation-agent event log text. Each extends a register in memory,
//! `register := SHA-384(register ‖ digest)`. Evidence binds the register, so an entry
//! cannot be changed, dropped or added afterwards without a new report; an entry
//! that was never made cannot be noticed, which is why it precedes the act.
//!
//! A verifier gets the log from the host and replays it (`policy/appraisal`).

mod entry;
mod event;
pub mod format;

use aws_lc_rs::digest::{Context, SHA512};

use self::format::{EV_EVENT_TAG, REGISTER, SHA_384};
pub use self::{
    entry::{
        BootEntry, ChangeEntry, ContainerDigests, ContainerEntry, DenialEntry, Entry, ExecDigests,
        ExecEntry, FilesEntry, ImageEntry, InitdataEntry, PolicyEntry, PolicySource,
    },
    event::{DOMAIN, Event, EventError, MAX_CONTENT_LEN, MAX_LOG_LEN, Operation},
};
use crate::field::{ReportData, Sha256Digest, Sha384Digest};

/// Separates the binding from every other use of report data.
const BINDING: &[u8] = b"kata-cc evidence 1\0";

/// Digests of an event, for registers outside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventDigests {
    /// For a register of 32 bytes.
    pub sha_256: Sha256Digest,
    /// For one of 48 bytes; the digest that the log has.
    pub sha_384: Sha384Digest,
}

/// The log and the value of its register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementLog {
    bytes: Vec<u8>,
    events: Vec<Event>,
    register: Sha384Digest,
    register_256: Sha256Digest,
}

impl Default for MeasurementLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MeasurementLog {
    /// An empty log; its register is zero.
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            events: Vec::new(),
            register: Sha384Digest::ZERO,
            register_256: Sha256Digest::ZERO,
        }
    }

    /// Appends an event and extends the register.
    ///
    /// # Errors
    ///
    /// [`EventError::Full`]: then what the event describes must not happen.
    pub fn append(&mut self, event: Event) -> Result<(), EventError> {
        self.append_after(event, |_| Ok(()))
    }

    /// The same, after a register of the platform was extended; if that fails, the log
    /// stays as it was.
    ///
    /// # Errors
    ///
    /// [`EventError::Full`], before anything is extended, or why the platform's register
    /// was not; then what the event describes must not happen.
    pub fn append_after<E: From<EventError>>(
        &mut self,
        event: Event,
        extend: impl FnOnce(&EventDigests) -> Result<(), E>,
    ) -> Result<(), E> {
        let tagged = format::tagged(&event);
        let digests = EventDigests {
            sha_256: Sha256Digest::of(&[&tagged]),
            sha_384: Sha384Digest::of(&[&tagged]),
        };
        let digest = digests.sha_384;
        let mut entry = Vec::with_capacity(tagged.len() + 66);
        entry.extend(REGISTER.to_le_bytes());
        entry.extend(EV_EVENT_TAG.to_le_bytes());
        entry.extend(1_u32.to_le_bytes());
        entry.extend(SHA_384.to_le_bytes());
        entry.extend(digest.0);
        entry.extend(format::length_field(tagged.len()));
        entry.extend(tagged);
        if self.bytes.len() + entry.len() > MAX_LOG_LEN {
            return Err(EventError::Full.into());
        }
        extend(&digests)?;
        self.bytes.extend(entry);
        self.events.push(event);
        self.register = Sha384Digest::of(&[&self.register.0, &digest.0]);
        self.register_256 = Sha256Digest::of(&[&self.register_256.0, &digests.sha_256.0]);
        Ok(())
    }

    /// The log as it is passed on.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The events in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The register's value.
    pub fn register(&self) -> Sha384Digest {
        self.register
    }

    /// What a register of SHA-256 has that only this log was extended to, from zero: PCR 15
    /// of a guest with a vTPM.
    pub fn register_256(&self) -> Sha256Digest {
        self.register_256
    }

    /// Report data that bind the log so far and a verifier's nonce:
    /// SHA-512("kata-cc evidence 1" ‖ 0 ‖ nonce length as u64, big-endian ‖ nonce ‖ register).
    pub fn bound_report_data(&self, nonce: &[u8]) -> ReportData {
        let mut context = Context::new(&SHA512);
        context.update(BINDING);
        let length = u64::try_from(nonce.len()).expect("a length fits in 64 bits");
        context.update(&length.to_be_bytes());
        context.update(nonce);
        context.update(&self.register.0);
        ReportData::padded(context.finish().as_ref()).expect("a sha-512 digest fits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "0400000006000000010000000c00dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04\
                         d5692440fb00f3aa0609db7e49cd8d793f670d02200000004c45414118000000646f6d61696e206f706572\
                         6174696f6e20636f6e74656e74";
    const REGISTER_AFTER: &str = "82d3f7a4203f58dafe0519eb5e9f645339cda127418c62d4b0270d790ab6ff3c38783523613a7a9f610e7ba004788c26";

    fn log_of_one() -> MeasurementLog {
        let mut log = MeasurementLog::new();
        log.append(Event::parse("domain", "operation", "content").unwrap())
            .unwrap();
        log
    }

    #[test]
    fn entry_and_register_match_the_golden_ones() {
        let log = log_of_one();
        assert_eq!(hex::encode(log.as_bytes()), ENTRY);
        assert_eq!(log.register().to_string(), REGISTER_AFTER);
    }

    #[test]
    fn events_stay_on_one_line() {
        for (domain, operation, content) in [
            ("", "o", "c"),
            ("d d", "o", "c"),
            ("d", "o\n", "c"),
            ("d", "o", "c\nd o c"),
            ("d", "o", "\u{85}"),
        ] {
            assert!(
                Event::parse(domain, operation, content).is_err(),
                "{domain} {operation} {content}"
            );
        }
        assert!(Event::parse("d", "o", &"c".repeat(MAX_CONTENT_LEN + 1)).is_err());
    }

    #[test]
    fn a_full_log_refuses_and_stays_as_it_was() {
        let mut log = MeasurementLog::new();
        let event = Event::of(Operation::Denial, &"c".repeat(MAX_CONTENT_LEN)).unwrap();
        while log.append(event.clone()).is_ok() {}
        let before = log.clone();
        assert_eq!(log.append(event), Err(EventError::Full));
        assert_eq!(log, before);
        assert!(log.as_bytes().len() <= MAX_LOG_LEN);
    }

    #[test]
    fn binding_separates_nonce_from_register() {
        let log = log_of_one();
        assert_ne!(log.bound_report_data(b"a"), log.bound_report_data(b"b"));
        assert_ne!(
            log.bound_report_data(b""),
            MeasurementLog::new().bound_report_data(b"")
        );
    }
}
