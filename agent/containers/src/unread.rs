//! Output of a container's first process that the host does not read.
//!
//! A process that writes waits for its reader, as on any node. A host that reads nothing at
//! all would so stop the workload; after a while the oldest output is dropped to let it go
//! on, and the reader is told how much, at the end of a line, when it reads again.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{io::ioctl_fionread, pipe::fcntl_getpipe_size};

/// How often a stream that nobody reads is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Of a longer line the rest is not dropped: it may have no end.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What became of one stream's output.
#[derive(Debug, Default)]
pub(super) struct Unread {
    reading: AtomicU32,
    reads: AtomicU64,
    gap: Mutex<Gap>,
}

#[derive(Debug, Default)]
struct Gap {
    /// Bytes that were dropped since the last read.
    dropped: u64,
    /// Whether the last byte that was dropped was no line feed.
    inside_line: bool,
    /// Whether the reader was left inside a line.
    reader_inside_line: bool,
    /// Bytes of the rest of a line that were dropped since the reader is back.
    skipped: usize,
    /// What the reader gets before anything else.
    first: Vec<u8>,
}

/// A read that goes on.
pub(super) struct Reading<'a>(&'a Unread);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reads.fetch_add(1, Ordering::AcqRel);
        self.0.reading.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Unread {
    pub(super) fn reading(&self) -> Reading<'_> {
        self.reading.fetch_add(1, Ordering::AcqRel);
        Reading(self)
    }

    /// Bytes that the reader gets before anything else.
    pub(super) fn first(&self, len: usize) -> Option<Vec<u8>> {
        let mut gap = self.gap();
        let len = len.min(gap.first.len());
        (len > 0).then(|| gap.first.drain(..len).collect())
    }

    /// Takes what was read into account: after a gap the rest of a line is dropped too, and the
    /// reader is told first. Nothing comes of a piece that lies inside of such a line.
    pub(super) fn deliver(&self, bytes: Vec<u8>, len: usize) -> Option<Vec<u8>> {
        let mut gap = self.gap();
        if gap.dropped == 0 {
            if let Some(last) = bytes.last() {
                gap.reader_inside_line = *last != b'\n';
            }
            return Some(bytes);
        }
        let line_end = bytes.iter().position(|byte| *byte == b'\n');
        let rest = match (gap.inside_line, line_end) {
            (false, _) => bytes.as_slice(),
            (true, Some(end)) => bytes.get(end + 1..).unwrap_or_default(),
            (true, None) if bytes.is_empty() || gap.skipped >= LINE_BYTES_MAX => &bytes,
            (true, None) => {
                gap.drop_all(&bytes);
                gap.skipped += bytes.len();
                return None;
            }
        };
        gap.skipped = 0;
        gap.dropped += (bytes.len() - rest.len()) as u64;
        let mut first = gap.notice();
        first.extend_from_slice(rest);
        gap.reader_inside_line = rest.last().is_some_and(|last| *last != b'\n');
        gap.dropped = 0;
        gap.first = first.split_off(first.len().min(len));
        Some(first)
    }

    fn gap(&self) -> std::sync::MutexGuard<'_, Gap> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the host has read nothing for so long, and the stream is so full that its
    /// writer waits or soon will; then drops the oldest. Says how many bytes it were when the
    /// host reads again. Goes on until it is cancelled.
    pub(super) async fn watch(&self, stream: &OwnedFd, patience: Duration, say: impl Fn(u64)) {
        loop {
            let before = self.reads.load(Ordering::Acquire);
            tokio::time::sleep(patience).await;
            let mut dropped = 0_u64;
            while self.is_unread_since(before) {
                if is_half_full(stream).unwrap_or(false) {
                    dropped = dropped.saturating_add(self.drop_some(stream));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if dropped > 0 {
                say(dropped);
            }
        }
    }

    fn is_unread_since(&self, before: u64) -> bool {
        self.reading.load(Ordering::Acquire) == 0 && self.reads.load(Ordering::Acquire) == before
    }

    fn drop_some(&self, stream: &OwnedFd) -> u64 {
        let mut bytes = vec![0; capacity(stream) / 4];
        let count = rustix::io::read(stream, bytes.as_mut_slice()).unwrap_or(0);
        self.gap().drop_all(bytes.get(..count).unwrap_or_default());
        count as u64
    }
}

impl Gap {
    fn drop_all(&mut self, bytes: &[u8]) {
        self.dropped = self.dropped.saturating_add(bytes.len() as u64);
        if let Some(last) = bytes.last() {
            self.inside_line = *last != b'\n';
        }
    }

    fn notice(&self) -> Vec<u8> {
        let start = if self.reader_inside_line { "\n" } else { "" };
        let dropped = self.dropped;
        format!("{start}[{dropped} bytes of output were dropped: the host did not read]\n")
            .into_bytes()
    }
}

fn is_half_full(stream: &OwnedFd) -> io::Result<bool> {
    Ok(ioctl_fionread(stream)? >= capacity(stream) as u64 / 2)
}

fn capacity(stream: &OwnedFd) -> usize {
    fcntl_getpipe_size(stream).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a reader gets after this was dropped, in reads of at most `len` bytes.
    fn got(before: &[u8], dropped: &[u8], after: &[&[u8]], len: usize) -> String {
        let unread = Unread::default();
        unread.deliver(before.to_vec(), before.len());
        unread.gap().drop_all(dropped);
        let mut text = Vec::new();
        for piece in after {
            text.extend(unread.deliver(piece.to_vec(), len).unwrap_or_default());
            while let Some(more) = unread.first(len) {
                assert!(more.len() <= len);
                text.extend(more);
            }
        }
        String::from_utf8(text).unwrap()
    }

    const TOLD: &str = "bytes of output were dropped: the host did not read]\n";

    #[test]
    fn a_gap_is_told_at_the_end_of_a_line_and_never_inside_one() {
        // The line that the gap cuts is gone as a whole, in pieces too.
        let text = got(b"one\n", b"two\nthr", &[b"ee", b"!\nfour\n"], 4096);
        assert_eq!(text, format!("[11 {TOLD}four\n"));
        // A reader that was left inside a line hears of it on a line of its own.
        let text = got(b"one", b"two\n", &[b"three\n"], 4096);
        assert_eq!(text, format!("\n[4 {TOLD}three\n"));
    }

    #[test]
    fn a_read_never_gets_more_than_it_asked_for() {
        let text = got(b"", b"x\n", &[b"rest\n"], 7);
        assert_eq!(text, format!("[2 {TOLD}rest\n"));
    }

    #[test]
    fn a_line_without_end_does_not_hide_the_rest() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        let text = got(b"", b"start", &[&long, b"rest"], LINE_BYTES_MAX);
        assert!(text.ends_with(&format!("{TOLD}rest")), "{}", text.len());
        assert_eq!(got(b"", b"start", &[b""], 4096), format!("[5 {TOLD}"));
    }
}
