//! What children print: kept within bounds, on disk and for error messages.
//!
//! The console carries whatever the guest likes to send, for as long as it likes: the log is two
//! files of which the older is dropped, and the excerpt for error messages loses every control
//! character before it reaches somebody's terminal.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::watch};

/// Bytes kept in memory of each stream.
const TAIL: usize = 8192;
/// Lines quoted in an error message.
const QUOTED_LINES: usize = 4;
/// Characters quoted in an error message.
const QUOTED_CHARACTERS: usize = 600;
/// Bytes read at once.
const CHUNK: usize = 4096;

/// A stream that is being read to its end by a task.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    tail: Arc<Mutex<Tail>>,
    ended: watch::Receiver<()>,
}

impl Capture {
    /// Reads `source` to its end into the log at `path`, which with its predecessor stays below
    /// `limit` bytes.
    pub(crate) fn start(source: OwnedFd, path: PathBuf, limit: usize) -> io::Result<Self> {
        let mut source = pipe::Receiver::from_owned_fd(source)?;
        let mut log = BoundedLog::create(path, limit)?;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (end, ended) = watch::channel(());
        let shared = Arc::clone(&tail);
        tokio::spawn(async move {
            let mut chunk = [0; CHUNK];
            while let Ok(length @ 1..) = source.read(&mut chunk).await {
                let chunk = chunk.get(..length).unwrap_or_default();
                shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(chunk);
                log.append(chunk);
            }
            drop(end);
        });
        Ok(Self { tail, ended })
    }

    /// Waits until everything that was printed is here, at most for `patience`.
    pub(crate) async fn finished(&self, patience: Duration) {
        let mut ended = self.ended.clone();
        // What has not come by then is left out of the message.
        let _late = tokio::time::timeout(patience, ended.changed()).await;
    }

    /// The last lines, on one line and harmless to a terminal.
    pub(crate) fn excerpt(&self) -> String {
        self.tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .excerpt()
    }
}

#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let kept = bytes
            .get(bytes.len().saturating_sub(TAIL)..)
            .unwrap_or_default();
        let excess = (self.0.len() + kept.len()).saturating_sub(TAIL);
        self.0.drain(..excess);
        self.0.extend(kept);
    }

    fn excerpt(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = without_escapes(&String::from_utf8_lossy(&bytes));
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        // What a kernel prints after this line helps nobody but its developers.
        let panic = lines.iter().position(|line| line.contains("Kernel panic"));
        let end = panic.map_or(lines.len(), |line| line + 1);
        let quoted = lines
            .get(end.saturating_sub(QUOTED_LINES)..end)
            .unwrap_or_default();
        let joined = quoted.join(" | ");
        let excess = joined.chars().count().saturating_sub(QUOTED_CHARACTERS);
        joined.chars().skip(excess).collect()
    }
}

/// Drops terminal control sequences (ECMA-48, section 5.4) and control characters but newline.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                if characters.next() == Some('[') {
                    while characters.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                    characters.next_if(|c| matches!(c, '@'..='~'));
                }
            }
            '\n' => plain.push('\n'),
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// Where the older half of a log is.
pub(crate) fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[derive(Debug)]
struct BoundedLog {
    path: PathBuf,
    /// `None` after a failed write: the guest's output must never stop the VM.
    file: Option<File>,
    written: usize,
    half: usize,
}

impl BoundedLog {
    fn create(path: PathBuf, limit: usize) -> io::Result<Self> {
        let file = Some(fresh(&path)?);
        Ok(Self {
            path,
            file,
            written: 0,
            half: limit / 2,
        })
    }

    fn append(&mut self, chunk: &[u8]) {
        if let Err(error) = self.try_append(chunk) {
            tracing::warn!(path = %self.path.display(), %error, "log cannot be written");
            self.file = None;
        }
    }

    fn try_append(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        if self.written + chunk.len() > self.half {
            std::fs::rename(&self.path, older(&self.path))?;
            let marker = "[what came before is in the file .log.1; older output was dropped]\n";
            let mut file = fresh(&self.path)?;
            file.write_all(marker.as_bytes())?;
            self.file = Some(file);
            self.written = marker.len();
        }
        self.written += chunk.len();
        self.file
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(chunk))
    }
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_is_the_last_lines_without_control_characters() {
        let mut tail = Tail::default();
        tail.push(b"\x1bc\x1b[?7l\x1b[2Jone\r\n\r\ntwo\x07\n\x1b[1;31mthree\x1b[0m\nfour\nfive\n");
        assert_eq!(tail.excerpt(), "two | three | four | five");
        tail.push(&[0xff; TAIL + 7]);
        assert_eq!(tail.0.len(), TAIL);
        assert_eq!(tail.excerpt().chars().count(), QUOTED_CHARACTERS);
    }

    #[test]
    fn the_excerpt_of_a_panic_ends_with_its_reason() {
        let mut tail = Tail::default();
        tail.push(b"[1.0] no init\n[1.1] Kernel panic - not syncing: why\n[1.2] Call Trace:\n");
        assert_eq!(
            tail.excerpt(),
            "[1.0] no init | [1.1] Kernel panic - not syncing: why"
        );
    }

    #[test]
    fn an_unfinished_escape_sequence_ends_the_excerpt() {
        for (bytes, excerpt) in [
            (&b"a\x1b"[..], "a"),
            (b"a\x1b[", "a"),
            (b"a\x1b[3", "a"),
            (b"\x1b[\x1b[2Jb", "b"),
        ] {
            let mut tail = Tail::default();
            tail.push(bytes);
            assert_eq!(tail.excerpt(), excerpt, "{bytes:?}");
        }
    }

    #[test]
    fn the_log_never_exceeds_its_limit_and_keeps_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut log = BoundedLog::create(path.clone(), 4096).unwrap();
        for number in 0..1000 {
            log.append(format!("line {number}\n").as_bytes());
            let sizes = [&path, &older(&path)].map(|p| std::fs::metadata(p).map_or(0, |m| m.len()));
            assert!(sizes.iter().sum::<u64>() <= 4096, "{sizes:?}");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("[what came before"), "{text}");
        assert!(text.ends_with("line 999\n"), "{text}");
        assert!(std::fs::read_to_string(older(&path)).unwrap().len() > 1024);
    }

    #[tokio::test]
    async fn a_stream_is_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let (reader, mut writer) = io::pipe().unwrap();
        let capture = Capture::start(reader.into(), path.clone(), 1 << 20).unwrap();
        writer.write_all(b"hello\n").unwrap();
        drop(writer);
        capture.finished(Duration::from_secs(10)).await;
        assert_eq!(capture.excerpt(), "hello");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "hello\n");
    }
}
