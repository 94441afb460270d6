//! How much the guest holds of requests that it has not answered yet.
//!
//! Each request is kept in memory until its answer is written, and a host can send without
//! end. So the frames of both directions are counted as they pass (ttrpc: a header of ten
//! bytes, big-endian: length of the body, stream, type, flags), and while too much is open
//! nothing more is read.

use std::{
    collections::BTreeMap,
    io,
    task::{Context, Waker},
};

/// Most bytes of open requests: four of the largest that ttrpc takes.
const BYTES_MAX: usize = 16 << 20;
/// Most open requests: several for each process of many containers.
const REQUESTS_MAX: usize = 8192;

const HEADER_BYTES: usize = 10;
const TYPE_REQUEST: u8 = 1;
const TYPE_RESPONSE: u8 = 2;

/// Requests that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    incoming: Frames,
    outgoing: Frames,
    open: BTreeMap<u32, usize>,
    bytes: usize,
    reader: Option<Waker>,
}

/// One direction of the connection.
#[derive(Debug, Default)]
struct Frames {
    header: Vec<u8>,
    body_left: usize,
}

/// The start of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    body_bytes: usize,
    stream: u32,
    kind: u8,
}

impl InFlight {
    /// Whether more can be read; if not, the reader is woken when that has changed.
    pub(super) fn has_room(&mut self, context: &Context<'_>) -> bool {
        let has_room = self.bytes < BYTES_MAX && self.open.len() < REQUESTS_MAX;
        if !has_room {
            self.reader = Some(context.waker().clone());
        }
        has_room
    }

    /// Counts what was read.
    ///
    /// # Errors
    ///
    /// When a request takes the stream of one that is open.
    pub(super) fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        for frame in self.incoming.pass(bytes) {
            if frame.kind != TYPE_REQUEST {
                continue;
            }
            if self.open.insert(frame.stream, frame.body_bytes).is_some() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.bytes = self.bytes.saturating_add(frame.body_bytes);
        }
        Ok(())
    }

    /// Counts what was written.
    pub(super) fn written(&mut self, bytes: &[u8]) {
        for frame in self.outgoing.pass(bytes) {
            if frame.kind == TYPE_RESPONSE
                && let Some(size) = self.open.remove(&frame.stream)
            {
                self.bytes = self.bytes.saturating_sub(size);
                if let Some(reader) = self.reader.take() {
                    reader.wake();
                }
            }
        }
    }
}

impl Frames {
    /// The frames that begin in these bytes.
    fn pass(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut begun = Vec::new();
        while !bytes.is_empty() {
            let inside = bytes.len().min(self.body_left);
            self.body_left -= inside;
            bytes = bytes.get(inside..).unwrap_or_default();
            let wanted = bytes.len().min(HEADER_BYTES - self.header.len());
            let (of_header, rest) = bytes.split_at(wanted);
            self.header.extend_from_slice(of_header);
            bytes = rest;
            if let Some(frame) = Frame::parse(&self.header) {
                self.header.clear();
                self.body_left = frame.body_bytes;
                begun.push(frame);
            }
        }
        begun
    }
}

impl Frame {
    fn parse(header: &[u8]) -> Option<Self> {
        let (length, rest) = header.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let [kind, _flags] = rest else { return None };
        Some(Self {
            body_bytes: u32::from_be_bytes(*length) as usize,
            stream: u32::from_be_bytes(*stream),
            kind: *kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, body: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(body).unwrap().to_be_bytes().to_vec();
        bytes.extend(stream.to_be_bytes());
        bytes.extend([kind, 0]);
        bytes.extend(vec![0xff; body]);
        bytes
    }

    fn has_room(flight: &mut InFlight) -> bool {
        flight.has_room(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn requests_count_until_they_are_answered_however_they_are_cut() {
        for piece in [1, 3, 10, 4096] {
            let mut flight = InFlight::default();
            let requests = [frame(1, 1, 5), frame(1, 3, 0), frame(1, 5, 300)].concat();
            for bytes in requests.chunks(piece) {
                flight.read(bytes).unwrap();
            }
            assert_eq!((flight.open.len(), flight.bytes), (3, 305));
            let answers = [frame(2, 5, 20), frame(2, 1, 0)].concat();
            for bytes in answers.chunks(piece) {
                flight.written(bytes);
            }
            assert_eq!((flight.open.len(), flight.bytes), (1, 0), "{piece}");
        }
    }

    #[test]
    fn nothing_more_is_read_while_too_much_is_open() {
        let mut flight = InFlight::default();
        for stream in 0..4 {
            assert!(has_room(&mut flight), "{stream}");
            flight.read(&frame(1, 2 * stream + 1, 4 << 20)).unwrap();
        }
        assert!(!has_room(&mut flight));
        flight.written(&frame(2, 3, 0));
        assert!(has_room(&mut flight));
        let mut many = InFlight::default();
        for stream in 0..REQUESTS_MAX {
            many.read(&frame(1, u32::try_from(stream).unwrap(), 0))
                .unwrap();
        }
        assert!(!has_room(&mut many));
    }

    #[test]
    fn a_stream_is_not_taken_twice() {
        let mut flight = InFlight::default();
        flight.read(&frame(1, 1, 4)).unwrap();
        assert!(flight.read(&frame(1, 1, 4)).is_err());
        // An answer to nothing changes nothing.
        flight.written(&frame(2, 9, 4));
        assert_eq!(flight.bytes, 4);
    }
}
