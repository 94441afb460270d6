//! A line for every decision, each with the SHA-256 of the line before.
//!
//! Whoever keeps the last line's digest, the head, notices a line that was changed, removed or
//! added before it. Lines cut off at the end are noticed only by comparing heads. If a line cannot
//! be written, what it tells of does not happen.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use agent_evidence::Sha256Digest;
use policy_appraisal::Timestamp;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// Name of the file in the broker's directory.
pub const FILE: &str = "audit.jsonl";
/// Longest line read, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When.
    pub time: Timestamp,
    /// What was asked: `attest` or `resource`.
    pub asked: String,
    /// Who asked, as an address.
    pub peer: String,
    /// Which resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Whether it was given.
    pub given: bool,
    /// How often the like was refused within an hour; what lies between powers of two is not written.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u64,
    /// What the guest proved, if it did: measurement and HOST_DATA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// The checks that refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// SHA-256 of the line before, without its line feed; zeros before the first.
    pub previous: Sha256Digest,
}

const fn once() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_once(times: &u64) -> bool {
    *times == once()
}

/// The audit log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be used.
    #[error("cannot use the audit log {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another broker writes it.
    #[error("another broker uses the audit log {0}")]
    Used(PathBuf),
    /// A line is not what follows the line before.
    #[error(
        "the audit log {path} was changed: line {line} does not follow from the one before; keep the file, and move it away to begin a new one"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// The log, open for writing.
pub struct Audit {
    file: File,
    path: PathBuf,
    head: Sha256Digest,
}

/// A log that was read, whose chain holds.
#[derive(Debug)]
pub struct Read {
    /// The lines, oldest first: the last of them only.
    pub lines: Vec<Line>,
    /// How many there are in all.
    pub count: usize,
    /// Digest of the last.
    pub head: Sha256Digest,
    /// Bytes of whole lines.
    whole: u64,
}

impl Audit {
    /// Opens the log in this directory, for this process alone, and checks its chain. A line that
    /// was cut off when a broker was killed is removed.
    ///
    /// # Errors
    ///
    /// [`AuditError`]
    pub fn open(directory: &Path) -> Result<Self, AuditError> {
        let path = directory.join(FILE);
        let failed = |source| AuditError::File {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => AuditError::Used(path.clone()),
            TryLockError::Error(source) => failed(source),
        })?;
        let read = read(directory, 0)?;
        file.set_len(read.whole).map_err(failed)?;
        Ok(Self {
            file,
            path,
            head: read.head,
        })
    }

    /// Writes a line and syncs it.
    ///
    /// # Errors
    ///
    /// [`AuditError`]: then the decision must not take effect.
    pub fn write(&mut self, mut line: Line) -> Result<(), AuditError> {
        line.previous = self.head;
        let mut text = serde_json::to_string(&line).expect("texts and digests are json");
        let head = Sha256Digest::of(&[text.as_bytes()]);
        text.push('\n');
        let before = self.file.metadata().map(|found| found.len());
        let written = self.file.write_all(text.as_bytes()).and_then(|()| {
            // Who is refused can ask often; what was given must be on the disk before.
            if line.given {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(source) = written {
            if let Ok(length) = before {
                // A part of the line may be there; if it stays, the next start removes it.
                let _ = self.file.set_len(length);
            }
            return Err(AuditError::File {
                path: self.path.clone(),
                source,
            });
        }
        self.head = head;
        Ok(())
    }
}

/// Reads the log in this directory, checks its chain and keeps the last lines.
///
/// # Errors
///
/// [`AuditError`], which names the first line that does not follow.
pub fn read(directory: &Path, keep: usize) -> Result<Read, AuditError> {
    let path = directory.join(FILE);
    let failed = |source| AuditError::File {
        path: path.clone(),
        source,
    };
    let mut reader = BufReader::new(File::open(&path).map_err(failed)?);
    let mut read = Read {
        lines: Vec::new(),
        count: 0,
        head: Sha256Digest::ZERO,
        whole: 0,
    };
    loop {
        let mut text = Vec::new();
        let mut bounded = io::Read::take(&mut reader, LINE_BYTES_MAX);
        bounded.read_until(b'\n', &mut text).map_err(failed)?;
        if text.pop() != Some(b'\n') {
            return Ok(read);
        }
        let line = agent_documents::parse_json::<Line>(&text).ok();
        let line = line.filter(|line| line.previous == read.head);
        let line = line.ok_or_else(|| AuditError::Broken {
            path: path.clone(),
            line: read.count + 1,
        })?;
        read.head = Sha256Digest::of(&[&text]);
        read.count += 1;
        read.whole += u64::try_from(text.len() + 1).unwrap_or(u64::MAX);
        read.lines.push(line);
        if read.lines.len() > 2 * keep {
            read.lines.drain(..read.lines.len() - keep);
        }
    }
}
