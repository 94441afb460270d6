//! Copies files and trees of the host into the guest.
//!
//! Directories, regular files and symbolic links that lead down; anything else in a
//! tree is skipped. Links are copied as links and never followed, so that the shim reads
//! nothing outside of the volume. Sizes are bounded: what a pod gets this way lies in
//! the guest's memory.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

use agent_protocol::{limits::COPY_FILE_CHUNK_BYTES_MAX, rpc::agent::CopyFileRequest};
use shim_agent_client::{AgentClient, AgentError};
use thiserror::Error;
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncReadExt,
};

/// The most files of one volume.
const ENTRIES_MAX: usize = 4096;
/// The most bytes of one volume.
const BYTES_MAX: u64 = 256 << 20;
/// The deepest tree.
const DEPTH_MAX: usize = 32;
const PARENT_MODE: u32 = 0o755;

/// One file or tree to copy.
#[derive(Debug, Clone)]
pub struct CopyPlan {
    /// Where it is.
    pub host: PathBuf,
    /// Where it goes.
    pub guest: String,
    /// Where the container sees it, for messages.
    pub destination: String,
}

/// Why a copy failed.
#[derive(Debug, Error)]
pub enum CopyError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file became shorter while it was copied.
    #[error("{path} changed while it was copied")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A name that the protocol cannot carry.
    #[error("the name of {path} is not UTF-8")]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// The volume is too large for a copy in the guest's memory.
    #[error("it holds more than {ENTRIES_MAX} files, {DEPTH_MAX} levels or {} MiB", BYTES_MAX >> 20)]
    TooLarge,
    /// The guest refused.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// One thing to send.
#[derive(Debug)]
struct Entry {
    host: PathBuf,
    guest: String,
    metadata: Metadata,
}

/// Copies a file or tree.
///
/// # Errors
///
/// [`CopyError`] names the file.
pub async fn copy(agent: &AgentClient, plan: &CopyPlan) -> Result<(), CopyError> {
    // A volume may lie on a network file system that hangs.
    let walked = {
        let plan = plan.clone();
        tokio::task::spawn_blocking(move || entries(&plan))
    };
    let walked = walked.await.map_err(|error| CopyError::Read {
        path: plan.host.clone(),
        source: error.into(),
    })?;
    for entry in walked? {
        let kind = entry.metadata.file_type();
        if kind.is_file() {
            copy_file(agent, &entry).await?;
        } else {
            let data = if kind.is_symlink() {
                let target = fs::read_link(&entry.host).map_err(read_error(&entry.host))?;
                target.as_os_str().as_bytes().to_vec()
            } else {
                Vec::new()
            };
            let mut request = request(&entry);
            request.file_size = i64::try_from(data.len()).unwrap_or(i64::MAX);
            request.data = data;
            agent.copy_file(&request).await?;
        }
    }
    Ok(())
}

async fn copy_file(agent: &AgentClient, entry: &Entry) -> Result<(), CopyError> {
    let mut file = open(&entry.host).await?;
    let size = entry.metadata.len();
    let mut offset = 0;
    loop {
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(COPY_FILE_CHUNK_BYTES_MAX)];
        let read = file.read_exact(&mut chunk).await;
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => CopyError::Changed {
                path: entry.host.clone(),
            },
            _ => read_error(&entry.host)(error),
        })?;
        let mut request = request(entry);
        request.file_size = i64::try_from(size).unwrap_or(i64::MAX);
        request.offset = i64::try_from(offset).unwrap_or(i64::MAX);
        offset += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        request.data = chunk;
        agent.copy_file(&request).await?;
        if offset >= size {
            return Ok(());
        }
    }
}

async fn open(path: &Path) -> Result<File, CopyError> {
    let mut options = OpenOptions::new();
    // The tree may change under us: no fifo may block, no terminal be taken.
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).await.map_err(read_error(path))
}

fn request(entry: &Entry) -> CopyFileRequest {
    let id = |id: u32| i32::try_from(id).unwrap_or(-1);
    CopyFileRequest {
        path: entry.guest.clone(),
        file_mode: entry.metadata.mode(),
        dir_mode: PARENT_MODE,
        uid: id(entry.metadata.uid()),
        gid: id(entry.metadata.gid()),
        ..CopyFileRequest::default()
    }
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Read {
        path: path.clone(),
        source,
    }
}

/// Everything to send, parents before children.
fn entries(plan: &CopyPlan) -> Result<Vec<Entry>, CopyError> {
    let metadata = fs::metadata(&plan.host).map_err(read_error(&plan.host))?;
    let mut walk = Walk::default();
    walk.add(&plan.host, plan.guest.clone(), metadata, 0)?;
    // Links last: what they show is complete when they appear.
    walk.entries
        .sort_by_key(|entry| entry.metadata.is_symlink());
    Ok(walk.entries)
}

/// Whether a link leads down from where it is. The guest refuses others, for they could
/// lead anywhere.
fn is_plain_link(link: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| {
        let mut parts = target.components();
        target.components().next().is_some()
            && parts.all(|part| matches!(part, Component::Normal(_)))
    })
}

#[derive(Default)]
struct Walk {
    entries: Vec<Entry>,
    bytes: u64,
}

impl Walk {
    fn add(
        &mut self,
        host: &Path,
        guest: String,
        metadata: Metadata,
        depth: usize,
    ) -> Result<(), CopyError> {
        let kind = metadata.file_type();
        let leads_out = kind.is_symlink() && !is_plain_link(host);
        if leads_out || !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
            tracing::debug!(path = %host.display(), "not copied");
            return Ok(());
        }
        self.bytes = self
            .bytes
            .saturating_add(if kind.is_file() { metadata.len() } else { 0 });
        if self.entries.len() >= ENTRIES_MAX || self.bytes > BYTES_MAX || depth > DEPTH_MAX {
            return Err(CopyError::TooLarge);
        }
        self.entries.push(Entry {
            host: host.to_owned(),
            guest: guest.clone(),
            metadata,
        });
        if !kind.is_dir() {
            return Ok(());
        }
        for child in fs::read_dir(host).map_err(read_error(host))? {
            let child = child.map_err(read_error(host))?;
            let path = child.path();
            let name = child.file_name().into_string();
            let name = name.map_err(|_| CopyError::Name { path: path.clone() })?;
            let metadata = child.metadata().map_err(read_error(&path))?;
            self.add(&path, format!("{guest}/{name}"), metadata, depth + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(host: &Path) -> Result<Vec<String>, CopyError> {
        let plan = CopyPlan {
            host: host.to_owned(),
            guest: "/g".into(),
            destination: "/d".into(),
        };
        Ok(entries(&plan)?
            .into_iter()
            .map(|entry| entry.guest)
            .collect())
    }

    #[test]
    fn a_configuration_volume_keeps_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("..2026_01")).unwrap();
        fs::write(root.join("..2026_01/key"), "value").unwrap();
        std::os::unix::fs::symlink("..2026_01", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", root.join("key")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("away")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let mut found = listed(root).unwrap();
        assert_eq!(found[0], "/g");
        found.sort();
        assert_eq!(
            found,
            [
                "/g",
                "/g/..2026_01",
                "/g/..2026_01/key",
                "/g/..data",
                "/g/key"
            ]
        );
    }

    #[test]
    fn a_volume_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("big")).unwrap();
        file.set_len(BYTES_MAX + 1).unwrap();
        assert!(matches!(listed(folder.path()), Err(CopyError::TooLarge)));
    }
}
