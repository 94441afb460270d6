//! What exists on the host because of a pod, written down before it exists.
//!
//! The record lives in the sandbox's state directory and names everything that
//! outlives a killed shim and cannot be found otherwise. `delete` reads it back.
//! It is replaced as a whole by rename, so a reader sees the old or the new one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::id::SandboxId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where all sandboxes keep their state.
const STATE_ROOT: &str = "/run/kata-cc";
const RECORD: &str = "record.json";

/// The files of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// The directory of a sandbox, whether it exists or not.
    pub(crate) fn of(sandbox: &SandboxId) -> Self {
        Self(Path::new(STATE_ROOT).join(sandbox))
    }

    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The hypervisor's part of it.
    pub(crate) fn vm(&self) -> PathBuf {
        self.0.join("vm")
    }
}

/// A process that must not be confused with a later one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    /// Process id.
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    start: u64,
}

impl ProcessMark {
    /// Marks a running process; `None` if there is none.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start) = parse_stat(&stat)?;
        (state != "Z").then_some(Self { pid, start })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// State and start time out of `/proc/<pid>/stat`.
fn parse_stat(stat: &str) -> Option<(&str, u64)> {
    // The command's name may hold anything, so count from its closing bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A link of the pod whose traffic was redirected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RedirectedLink {
    /// Index of the pod's link in its namespace.
    pub(crate) link: u32,
    /// Name of the tap.
    pub(crate) tap: String,
}

/// Everything that `delete` has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The shim that owns it all.
    pub(crate) shim: Option<ProcessMark>,
    /// The shim's socket.
    pub(crate) socket: Option<PathBuf>,
    /// The pod's network namespace.
    pub(crate) netns: Option<PathBuf>,
    /// Links with redirected traffic.
    pub(crate) links: Vec<RedirectedLink>,
    /// Cgroup directories made for the pod, parents first.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The file of the pod's scratch disk.
    #[serde(default)]
    pub(crate) scratch_disk: Option<PathBuf>,
}

/// Why the record could not be kept.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    /// The directory cannot be made.
    #[error("cannot make the state directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Record {
    /// A record that names only its shim.
    pub(crate) fn new(shim: Option<ProcessMark>, socket: Option<PathBuf>) -> Self {
        Self {
            shim,
            socket,
            netns: None,
            links: Vec::new(),
            cgroups: Vec::new(),
            scratch_disk: None,
        }
    }

    /// Replaces what is on disk, making the directory if need be.
    ///
    /// # Errors
    ///
    /// [`RecordError`] names the path.
    pub(crate) fn save(&self, state: &StateDir) -> Result<(), RecordError> {
        fs::create_dir_all(state.path()).map_err(|source| RecordError::Directory {
            path: state.path().to_owned(),
            source,
        })?;
        write_atomically(&state.path().join(RECORD), self)
    }

    /// Reads what is on disk; `None` if there is nothing, or only half a directory.
    ///
    /// # Errors
    ///
    /// [`RecordError::Read`] if it is there and cannot be read.
    pub(crate) fn load(state: &StateDir) -> Result<Option<Self>, RecordError> {
        let path = state.path().join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RecordError::Read { path, source }),
        };
        agent_protocol::documents::parse_json(&text)
            .map(Some)
            .map_err(|error| RecordError::Read {
                path,
                source: error.into(),
            })
    }
}

/// Writes a JSON file so that readers see all of it or none.
///
/// # Errors
///
/// [`RecordError::Write`] names the file.
pub(crate) fn write_atomically(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    let failed = |source: io::Error| RecordError::Write {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    let next = path.with_extension("json.next");
    fs::write(&next, text).map_err(failed)?;
    fs::rename(&next, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_record_loads_equal() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(&folder.path().join("s1"));
        assert_eq!(Record::load(&state).unwrap(), None);
        let mut record = Record::new(ProcessMark::of(1), Some("/s".into()));
        record.netns = Some("/run/netns/x".into());
        record.links.push(RedirectedLink {
            link: 2,
            tap: "tap0_kata".into(),
        });
        record.cgroups.push("/sys/fs/cgroup/x".into());
        record.scratch_disk = Some("/var/lib/x.img".into());
        record.save(&state).unwrap();
        assert_eq!(Record::load(&state).unwrap(), Some(record));
    }

    #[test]
    fn a_broken_record_is_an_error_not_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        fs::write(folder.path().join(RECORD), "{").unwrap();
        assert!(Record::load(&state).is_err());
    }

    #[test]
    fn a_mark_tells_a_process_from_its_successor() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mark = ProcessMark::of(own).unwrap();
        assert!(mark.is_alive());
        let other = ProcessMark {
            start: mark.start + 1,
            ..mark
        };
        assert!(!other.is_alive());
    }

    #[test]
    fn stat_is_read_behind_any_name() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        let stat = format!("7 (a) b ( c) S {tail}");
        assert_eq!(parse_stat(&stat), Some(("S", 4242)));
        assert_eq!(parse_stat("nonsense"), None);
    }
}
