//! The measurement log: what the guest did, in order, before it did it.
//!
//! Entries are TCG2 events (TCG PC client firmware profile, `TCG_PCR_EVENT2`) around
//! CoCo's attestation-agent event log text. Each extends a register in memory,
//! `register := SHA-384(register ‖ digest)`. Evidence binds the register, so an entry
//! cannot be changed, dropped or added afterwards without a new report; an entry
//! that was never made cannot be noticed, which is why it precedes the act.
//!
//! A verifier gets the log from the host: [`MeasurementLog::replay`] trusts nothing.

mod entry;
mod workload;

use std::fmt;

use aws_lc_rs::digest::{Context, SHA512};

pub use self::{
    entry::{
        BootEntry, ContainerEntry, DenialEntry, Entry, ExecEntry, ImageEntry, InitdataEntry,
        PolicyEntry, PolicySource,
    },
    workload::{AllowedContainer, Workload},
};
use crate::{
    bytes::{Reader, Truncated},
    field::{ReportData, Sha256Digest, Sha384Digest},
};

/// Longest log kept or read, in bytes.
pub const MAX_LOG_LEN: usize = 4 * 1024 * 1024;
/// Longest content of one event, in bytes.
pub const MAX_CONTENT_LEN: usize = 16 * 1024;
/// Domain of the events that the guest makes on its own.
pub const DOMAIN: &str = "kata-cc";

/// The measurement register that our entries name, as for PCR 17 on TDX.
const REGISTER: u32 = 4;
const EV_EVENT_TAG: u32 = 6;
const SHA_384: u16 = 0x000C;
/// `AAEL`, little-endian by its specification.
const TAG: u32 = 0x4141_454C;
const MAX_NAME_LEN: usize = 256;

/// Separates the binding from every other use of report data.
const BINDING: &[u8] = b"kata-cc evidence 1\0";

/// An event cannot be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Domain or operation is empty, too long, or holds something else than
    /// printable ASCII without space.
    #[error(
        "an event's domain and operation are words of at most {MAX_NAME_LEN} printable characters"
    )]
    Name,
    /// The content holds a control character.
    #[error("an event's content is one line of text")]
    Content,
    /// The content is too long.
    #[error("an event's content of {0} bytes is longer than {MAX_CONTENT_LEN}")]
    TooLong(usize),
    /// The log is full.
    #[error("the measurement log is full at {MAX_LOG_LEN} bytes")]
    Full,
}

/// Bytes are not a measurement log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// More bytes than a log can have.
    #[error("a measurement log of {0} bytes is longer than {MAX_LOG_LEN}")]
    TooLong(usize),
    /// A length points past the end.
    #[error("entry {entry} of the measurement log is cut off")]
    Truncated {
        /// Which entry, from 0.
        entry: usize,
        /// The field.
        #[source]
        source: Truncated,
    },
    /// Not an entry of our kind.
    #[error("entry {0} of the measurement log is of another kind, register or hash")]
    Kind(usize),
    /// The digest is not that of the event.
    #[error("entry {0} of the measurement log does not have the digest of its event")]
    Digest(usize),
    /// The text is not an event.
    #[error("entry {entry} of the measurement log holds no event")]
    Event {
        /// Which entry, from 0.
        entry: usize,
        /// Why not.
        #[source]
        source: EventError,
    },
}

/// What an entry of ours describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The guest image that booted.
    Boot,
    /// The initdata that was found.
    Initdata,
    /// The policy that was loaded.
    Policy,
    /// An image: digests of manifest, config and layers.
    Image,
    /// A container's final OCI spec.
    Container,
    /// A process started in a container.
    Exec,
    /// A request that was denied.
    Denial,
}

/// One line of the log: who says so, what was done, to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    domain: String,
    operation: String,
    content: String,
}

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

impl Operation {
    /// Its name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Initdata => "initdata",
            Self::Policy => "policy",
            Self::Image => "image",
            Self::Container => "container",
            Self::Exec => "exec",
            Self::Denial => "denial",
        }
    }
}

impl Event {
    /// An event of any domain.
    ///
    /// # Errors
    ///
    /// [`EventError`] if a part would not survive being written on one line.
    pub fn parse(domain: &str, operation: &str, content: &str) -> Result<Self, EventError> {
        let is_word = |name: &str| {
            (1..=MAX_NAME_LEN).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_word(domain) || !is_word(operation) {
            return Err(EventError::Name);
        }
        if content.len() > MAX_CONTENT_LEN {
            return Err(EventError::TooLong(content.len()));
        }
        if content.chars().any(char::is_control) {
            return Err(EventError::Content);
        }
        Ok(Self {
            domain: domain.to_owned(),
            operation: operation.to_owned(),
            content: content.to_owned(),
        })
    }

    /// An event of our own domain.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the content would not survive being written on one line.
    pub fn of(operation: Operation, content: &str) -> Result<Self, EventError> {
        Self::parse(DOMAIN, operation.name(), content)
    }

    /// Who says so.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What was done.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// To what.
    pub fn content(&self) -> &str {
        &self.content
    }

    fn read(text: &[u8]) -> Result<Self, EventError> {
        let text = std::str::from_utf8(text).map_err(|_| EventError::Content)?;
        let (domain, rest) = text.split_once(' ').ok_or(EventError::Name)?;
        let (operation, content) = rest.split_once(' ').ok_or(EventError::Name)?;
        Self::parse(domain, operation, content)
    }

    /// Tag, length and text: what the digest covers.
    fn tagged(&self) -> Vec<u8> {
        let text = self.to_string();
        let mut tagged = TAG.to_le_bytes().to_vec();
        tagged.extend(length_field(text.len()));
        tagged.extend(text.as_bytes());
        tagged
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.domain, self.operation, self.content)
    }
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
        let tagged = event.tagged();
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
        entry.extend(length_field(tagged.len()));
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

    /// Reads a log and computes its register.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] names the entry that is not one.
    pub fn replay(bytes: &[u8]) -> Result<Self, ReplayError> {
        if bytes.len() > MAX_LOG_LEN {
            return Err(ReplayError::TooLong(bytes.len()));
        }
        let mut log = Self::new();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let entry = log.events.len();
            let (digest, tagged) = read_entry(&mut reader, entry)?;
            if Sha384Digest::of(&[tagged]) != digest {
                return Err(ReplayError::Digest(entry));
            }
            let text = read_tagged(tagged, entry)?;
            let event = Event::read(text).map_err(|source| ReplayError::Event { entry, source })?;
            log.append(event)
                .map_err(|source| ReplayError::Event { entry, source })?;
        }
        Ok(log)
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

fn length_field(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("an event is bounded far below 4 GiB")
        .to_le_bytes()
}

fn read_entry<'a>(
    reader: &mut Reader<'a>,
    entry: usize,
) -> Result<(Sha384Digest, &'a [u8]), ReplayError> {
    let cut_off = |source| ReplayError::Truncated { entry, source };
    let header = (
        reader.u32_le().map_err(cut_off)?,
        reader.u32_le().map_err(cut_off)?,
        reader.u32_le().map_err(cut_off)?,
        reader.u16_le().map_err(cut_off)?,
    );
    if header != (REGISTER, EV_EVENT_TAG, 1, SHA_384) {
        return Err(ReplayError::Kind(entry));
    }
    let digest = Sha384Digest(reader.array().map_err(cut_off)?);
    let length = reader.u32_le().map_err(cut_off)?;
    Ok((digest, reader.take_u32(length).map_err(cut_off)?))
}

fn read_tagged(tagged: &[u8], entry: usize) -> Result<&[u8], ReplayError> {
    let cut_off = |source| ReplayError::Truncated { entry, source };
    let mut reader = Reader::new(tagged);
    if reader.u32_le().map_err(cut_off)? != TAG {
        return Err(ReplayError::Kind(entry));
    }
    let length = reader.u32_le().map_err(cut_off)?;
    let text = reader.take_u32(length).map_err(cut_off)?;
    if reader.is_empty() {
        Ok(text)
    } else {
        Err(ReplayError::Kind(entry))
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
    fn replay_gives_the_log_back() {
        let mut log = log_of_one();
        log.append(Event::of(Operation::Exec, "").unwrap()).unwrap();
        log.append(Event::of(Operation::Container, "web  with two spaces").unwrap())
            .unwrap();
        assert_eq!(MeasurementLog::replay(log.as_bytes()).unwrap(), log);
    }

    #[test]
    fn every_cut_is_refused() {
        let log = log_of_one();
        for length in 1..log.as_bytes().len() {
            let cut = log.as_bytes().get(..length).unwrap();
            assert!(MeasurementLog::replay(cut).is_err(), "{length}");
        }
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let log = log_of_one();
        for place in 0..log.as_bytes().len() {
            let mut changed = log.as_bytes().to_vec();
            changed[place] ^= 1;
            assert!(MeasurementLog::replay(&changed).is_err(), "{place}");
        }
    }

    #[test]
    fn an_edited_log_with_right_digests_has_another_register() {
        let mut edited = MeasurementLog::new();
        edited
            .append(Event::parse("domain", "operation", "other").unwrap())
            .unwrap();
        let replayed = MeasurementLog::replay(edited.as_bytes()).unwrap();
        assert_ne!(replayed.register(), log_of_one().register());
        assert_ne!(
            replayed.bound_report_data(b"n"),
            log_of_one().bound_report_data(b"n")
        );
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
