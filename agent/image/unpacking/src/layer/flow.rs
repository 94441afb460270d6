//! A bounded stream of byte chunks from one thread to another.
//!
//! Buffers go back to the sender when they are used up, so that a stream costs
//! the same few of them whatever its length. A sender that is dropped before its
//! end makes the receiver fail: a stream that breaks must not look like one that
//! ended.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver as Queue, Sender as Unbounded, SyncSender, channel, sync_channel},
};

/// Large enough that handing over costs nothing beside hashing, small enough for the second-level cache.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks under way besides the one at each end.
const DEPTH: usize = 2;

enum Message {
    Chunk(Vec<u8>),
    End,
}

/// The other side is gone; it knows why.
#[derive(Debug)]
pub(crate) struct Gone;

pub(crate) struct Sender {
    chunks: SyncSender<Message>,
    spent: Queue<Vec<u8>>,
    allowance: usize,
}

pub(crate) struct Receiver {
    chunks: Queue<Message>,
    spent: Unbounded<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

pub(crate) fn flow() -> (Sender, Receiver) {
    let (chunks, queue) = sync_channel(DEPTH);
    let (spent, returned) = channel();
    let sender = Sender {
        chunks,
        spent: returned,
        allowance: DEPTH + 2,
    };
    (
        sender,
        Receiver {
            chunks: queue,
            spent,
            current: Vec::new(),
            position: 0,
            ended: false,
        },
    )
}

impl Sender {
    /// A buffer to fill, of [`CHUNK_BYTES`]; waits for the receiver once all are under way.
    pub(crate) fn buffer(&mut self) -> Result<Vec<u8>, Gone> {
        if self.allowance > 0 {
            self.allowance -= 1;
            return Ok(vec![0; CHUNK_BYTES]);
        }
        let mut buffer = self.spent.recv().map_err(|_| Gone)?;
        // Only what a shorter chunk had cut off is written here.
        buffer.resize(CHUNK_BYTES, 0);
        Ok(buffer)
    }

    pub(crate) fn send(&self, chunk: Vec<u8>) -> Result<(), Gone> {
        self.chunks.send(Message::Chunk(chunk)).map_err(|_| Gone)
    }

    /// Ends the stream well.
    pub(crate) fn end(self) -> Result<(), Gone> {
        self.chunks.send(Message::End).map_err(|_| Gone)
    }
}

impl Receiver {
    /// The next chunk, to keep or to give back; `None` at the end. What was left of the one
    /// before is not looked at.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.ended {
            self.advance()?;
        }
        Ok((!self.ended).then(|| std::mem::take(&mut self.current)))
    }

    /// Gives the sender a buffer for the next chunk.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        // A sender that has ended wants no buffers any more.
        let _ = self.spent.send(buffer);
    }

    /// Goes to the next chunk, or to the end.
    fn advance(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.current);
        self.position = 0;
        if used.capacity() > 0 {
            self.give_back(used);
        }
        match self.chunks.recv() {
            Ok(Message::Chunk(chunk)) => self.current = chunk,
            Ok(Message::End) => self.ended = true,
            Err(_) => return Err(io::Error::other(Interrupted)),
        }
        Ok(())
    }
}

/// The stream's sender failed; its own error says why.
#[derive(Debug, thiserror::Error)]
#[error("the stage before failed")]
pub(crate) struct Interrupted;

/// Whether an error only passes on that the stage before failed.
pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<Interrupted>())
}

impl BufRead for Receiver {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.len() && !self.ended {
            self.advance()?;
        }
        Ok(self.current.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.position = self.current.len().min(self.position + amount);
    }
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        let (target, source) = (buffer.get_mut(..amount), available.get(..amount));
        if let (Some(target), Some(source)) = (target, source) {
            target.copy_from_slice(source);
        }
        self.consume(amount);
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_arrives_whole_through_few_buffers() {
        let (mut sender, mut receiver) = flow();
        let sending = std::thread::spawn(move || {
            for index in 0..50u8 {
                let mut buffer = sender.buffer().unwrap();
                buffer.truncate(usize::from(index) * 1000);
                buffer.fill(index);
                sender.send(buffer).unwrap();
            }
            sender.end().unwrap();
        });
        let mut bytes = Vec::new();
        receiver.read_to_end(&mut bytes).unwrap();
        sending.join().unwrap();
        assert_eq!(bytes.len(), 49 * 50 / 2 * 1000);
        assert!(bytes.is_sorted());
    }

    #[test]
    fn a_stream_that_is_passed_on_arrives_whole() {
        let ((mut first, mut passed), (mut second, mut receiver)) = (flow(), flow());
        let sending = std::thread::spawn(move || {
            for index in 0..50u8 {
                let mut buffer = first.buffer().unwrap();
                buffer.truncate(1 + usize::from(index) * 1000);
                buffer.fill(index);
                first.send(buffer).unwrap();
            }
            first.end().unwrap();
        });
        let passing = std::thread::spawn(move || {
            while let Some(chunk) = passed.next_chunk().unwrap() {
                passed.give_back(second.buffer().unwrap());
                second.send(chunk).unwrap();
            }
            assert!(passed.next_chunk().unwrap().is_none());
            second.end().unwrap();
        });
        let mut bytes = Vec::new();
        receiver.read_to_end(&mut bytes).unwrap();
        sending.join().unwrap();
        passing.join().unwrap();
        assert_eq!(bytes.len(), 50 + 49 * 50 / 2 * 1000);
        assert!(bytes.is_sorted());
    }

    #[test]
    fn a_stream_that_breaks_does_not_end() {
        let (mut sender, mut receiver) = flow();
        let chunk = sender.buffer().unwrap();
        sender.send(chunk).unwrap();
        drop(sender);
        let error = receiver.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(is_interrupted(&error));
    }

    #[test]
    fn a_sender_notices_that_nobody_listens() {
        let (mut sender, receiver) = flow();
        drop(receiver);
        let chunk = sender.buffer().unwrap();
        assert!(sender.send(chunk).is_err());
    }
}
