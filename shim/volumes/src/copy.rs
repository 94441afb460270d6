//! Copies files and trees of the host into the guest.
//!
//! Directories, regular files and symbolic links that lead down; anything else in a
//! tree is skipped. Links are copied as links and never followed, so that the shim reads
//! nothing outside of the volume, whoever changes it meanwhile. Sizes are bounded: what a pod
//! gets this way lies in the guest's memory.

use std::{
    fs::Metadata,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use agent_protocol::{limits::COPY_FILE_CHUNK_BYTES_MAX, rpc::agent::CopyFileRequest};
use nix::errno::Errno;
use shim_agent_client::{AgentClient, AgentError};
use thiserror::Error;
use tokio::{fs::File, io::AsyncReadExt, task::spawn_blocking};

use crate::{
    Copied, Place, VolumeError,
    place::readable,
    walk::{Content, DEPTH_MAX, ENTRIES_MAX, Entry, entries},
};

/// The most bytes of one volume.
pub(crate) const BYTES_MAX: u64 = 256 << 20;
const PARENT_MODE: u32 = 0o755;

/// One file or tree to copy.
#[derive(Debug, Clone)]
pub struct CopyPlan {
    /// Where it is.
    pub place: Place,
    /// Where it goes.
    pub guest: String,
    /// Where the container sees it, for messages.
    pub destination: String,
    /// Set when it is there, if it is copied once for the whole pod.
    pub copied: Option<Copied>,
    /// Whether what is in it is there already.
    pub only_directory: bool,
}

impl CopyPlan {
    /// The path of something in it, for messages.
    pub(crate) fn path_of(&self, name: &Path) -> PathBuf {
        let root = self.place.path();
        if name.as_os_str().is_empty() {
            return root.to_owned();
        }
        root.join(name)
    }
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
    /// A file became shorter, or something else, while it was copied.
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

/// Copies what a container needs. Everything is looked at before anything is sent.
///
/// # Errors
///
/// [`VolumeError::Copy`] names the volume.
pub async fn copy_all(agent: &AgentClient, plans: &[CopyPlan]) -> Result<(), VolumeError> {
    let mut listed = Vec::new();
    for plan in plans {
        let is_there = |copied: &Copied| copied.0.initialized();
        if !plan.copied.as_ref().is_some_and(is_there) {
            let entries = list(plan).await.map_err(|error| failed(plan, error))?;
            listed.push((plan, entries));
        }
    }
    for (plan, entries) in listed {
        let sent = match &plan.copied {
            // Another container may be copying it at this moment.
            Some(copied) => {
                let sending = || send_all(agent, plan, entries);
                copied.0.get_or_try_init(sending).await.copied()
            }
            None => send_all(agent, plan, entries).await,
        };
        sent.map_err(|error| failed(plan, error))?;
    }
    Ok(())
}

fn failed(plan: &CopyPlan, source: CopyError) -> VolumeError {
    VolumeError::Copy {
        mount_source: plan.place.path().display().to_string(),
        destination: plan.destination.clone(),
        source: Box::new(source),
    }
}

/// Copies a file or tree.
///
/// # Errors
///
/// [`CopyError`] names the file.
pub(crate) async fn copy(agent: &AgentClient, plan: &CopyPlan) -> Result<(), CopyError> {
    let entries = list(plan).await?;
    send_all(agent, plan, entries).await
}

async fn list(plan: &CopyPlan) -> Result<Vec<Entry>, CopyError> {
    let plan = plan.clone();
    blocking(plan.place.path().to_owned(), move || entries(&plan)).await
}

async fn send_all(
    agent: &AgentClient,
    plan: &CopyPlan,
    entries: Vec<Entry>,
) -> Result<(), CopyError> {
    let mut left = BYTES_MAX;
    for entry in entries {
        let (metadata, data) = match &entry.content {
            Content::File => {
                left = copy_file(agent, plan, entry, left).await?;
                continue;
            }
            Content::Directory(metadata) => (metadata, Vec::new()),
            Content::Link(metadata, target) => (metadata, target.as_os_str().as_bytes().to_vec()),
        };
        let mut request = request(&entry.guest, metadata);
        request.file_size = i64::try_from(data.len()).unwrap_or(i64::MAX);
        request.data = data;
        agent.copy_file(&request).await?;
    }
    Ok(())
}

/// Does what may hang, since a volume may lie on a network file system that does.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| CopyError::Read {
        path,
        source: error.into(),
    })?
}

/// Sends a file, if so many bytes may still be sent; answers how many may be afterwards.
async fn copy_file(
    agent: &AgentClient,
    plan: &CopyPlan,
    entry: Entry,
    left: u64,
) -> Result<u64, CopyError> {
    let path = plan.path_of(&entry.name);
    let place = plan.place.clone();
    let (file, metadata) = blocking(path.clone(), {
        let path = path.clone();
        move || open(&place, &entry.name, path)
    })
    .await?;
    let size = metadata.len();
    let left = left.checked_sub(size).ok_or(CopyError::TooLarge)?;
    send(agent, &entry.guest, File::from_std(file), &metadata)
        .await
        .map_err(|error| error.at(path))?;
    Ok(left)
}

/// Opens a file by its name beneath the volume; whatever has that name now, it is looked at
/// before it is read.
fn open(place: &Place, name: &Path, path: PathBuf) -> Result<(std::fs::File, Metadata), CopyError> {
    let replaced = [Errno::ELOOP, Errno::ENOENT, Errno::ENOTDIR].map(|errno| errno as i32);
    let found = match place.below(name) {
        Ok(found) => found,
        Err(error)
            if error
                .raw_os_error()
                .is_some_and(|code| replaced.contains(&code)) =>
        {
            return Err(CopyError::Changed { path });
        }
        Err(error) => return Err(read_error(&path)(error)),
    };
    let metadata = found.metadata().map_err(read_error(&path))?;
    if !metadata.is_file() {
        return Err(CopyError::Changed { path });
    }
    let file = readable(&found).map_err(read_error(&path))?;
    Ok((file, metadata))
}

/// Why a file was not sent.
enum SendError {
    Read(io::Error),
    Agent(AgentError),
}

impl SendError {
    fn at(self, path: PathBuf) -> CopyError {
        match self {
            Self::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                CopyError::Changed { path }
            }
            Self::Read(source) => CopyError::Read { path, source },
            Self::Agent(error) => error.into(),
        }
    }
}

async fn send(
    agent: &AgentClient,
    guest: &str,
    mut file: File,
    metadata: &Metadata,
) -> Result<(), SendError> {
    let size = metadata.len();
    let mut offset = 0;
    loop {
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(COPY_FILE_CHUNK_BYTES_MAX)];
        file.read_exact(&mut chunk).await.map_err(SendError::Read)?;
        let mut request = request(guest, metadata);
        request.file_size = i64::try_from(size).unwrap_or(i64::MAX);
        request.offset = i64::try_from(offset).unwrap_or(i64::MAX);
        offset += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        request.data = chunk;
        agent.copy_file(&request).await.map_err(SendError::Agent)?;
        if offset >= size {
            return Ok(());
        }
    }
}

fn request(guest: &str, metadata: &Metadata) -> CopyFileRequest {
    let id = |id: u32| i32::try_from(id).unwrap_or(-1);
    CopyFileRequest {
        path: guest.to_owned(),
        file_mode: metadata.mode(),
        dir_mode: PARENT_MODE,
        uid: id(metadata.uid()),
        gid: id(metadata.gid()),
        ..CopyFileRequest::default()
    }
}

pub(crate) fn read_error(path: &Path) -> impl Fn(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Read {
        path: path.clone(),
        source,
    }
}
