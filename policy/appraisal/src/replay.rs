//! A measurement log as received, replayed: it comes through the host, and nothing in it
//! is believed before its register is what the report binds.

use agent_evidence::{
    Sha384Digest,
    bytes::{Reader, Truncated},
    log::{
        Event, EventError, MAX_LOG_LEN, MeasurementLog,
        format::{EV_EVENT_TAG, REGISTER, SHA_384, TAG},
    },
};

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

/// Reads a log and computes its register.
///
/// # Errors
///
/// [`ReplayError`] names the entry that is not one.
pub fn replay(bytes: &[u8]) -> Result<MeasurementLog, ReplayError> {
    if bytes.len() > MAX_LOG_LEN {
        return Err(ReplayError::TooLong(bytes.len()));
    }
    let mut log = MeasurementLog::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let entry = log.events().len();
        let (digest, tagged) = read_entry(&mut reader, entry)?;
        if Sha384Digest::of(&[tagged]) != digest {
            return Err(ReplayError::Digest(entry));
        }
        let text = read_tagged(tagged, entry)?;
        let event = read_event(text).map_err(|source| ReplayError::Event { entry, source })?;
        log.append(event)
            .map_err(|source| ReplayError::Event { entry, source })?;
    }
    Ok(log)
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

fn read_event(text: &[u8]) -> Result<Event, EventError> {
    let text = std::str::from_utf8(text).map_err(|_| EventError::Content)?;
    let (domain, rest) = text.split_once(' ').ok_or(EventError::Name)?;
    let (operation, content) = rest.split_once(' ').ok_or(EventError::Name)?;
    Event::parse(domain, operation, content)
}

#[cfg(test)]
mod tests {
    use agent_evidence::log::Operation;

    use super::*;

    fn log_of_one() -> MeasurementLog {
        let mut log = MeasurementLog::new();
        log.append(Event::parse("domain", "operation", "content").unwrap())
            .unwrap();
        log
    }

    #[test]
    fn replay_gives_the_log_back() {
        let mut log = log_of_one();
        log.append(Event::of(Operation::Exec, "").unwrap()).unwrap();
        log.append(Event::of(Operation::Container, "web  with two spaces").unwrap())
            .unwrap();
        assert_eq!(replay(log.as_bytes()).unwrap(), log);
    }

    #[test]
    fn every_cut_is_refused() {
        let log = log_of_one();
        for length in 1..log.as_bytes().len() {
            let cut = log.as_bytes().get(..length).unwrap();
            assert!(replay(cut).is_err(), "{length}");
        }
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let log = log_of_one();
        for place in 0..log.as_bytes().len() {
            let mut changed = log.as_bytes().to_vec();
            changed[place] ^= 1;
            assert!(replay(&changed).is_err(), "{place}");
        }
    }

    #[test]
    fn an_edited_log_with_right_digests_has_another_register() {
        let mut edited = MeasurementLog::new();
        edited
            .append(Event::parse("domain", "operation", "other").unwrap())
            .unwrap();
        let replayed = replay(edited.as_bytes()).unwrap();
        assert_ne!(replayed.register(), log_of_one().register());
        assert_ne!(
            replayed.bound_report_data(b"n"),
            log_of_one().bound_report_data(b"n")
        );
    }
}
