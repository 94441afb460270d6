//! Where images, containers' changes and volumes lie: a disk that the host lends, under
//! keys that never leave this kernel's memory; or memory, if the host lends none.
//!
//! What the host can do to it. It sees how much is written, where and when, and a block
//! that is written again. It cannot read any of it. It can change, move or put back
//! blocks, and whoever reads them then gets an I/O error: what was verified when an image
//! was pulled stays verified ([`mapping`] says how). It can refuse to read or write, as it
//! can stop the VM.
//!
//! The disk is made ready in a thread while the guest goes on starting; who needs it
//! waits. A disk that cannot be used is an error for everybody who needs it, never a
//! reason to fall back to memory: the pod's memory was sized without its images.

use std::{
    error::Error as StdError,
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::mount::MountFlags;
use thiserror::Error;
use tracing::{error, info};

use crate::{
    disk::{self, DiskError},
    ext4,
    mapping::{self, MappingError},
    random::fill_random,
};

/// Where the scratch disk is mounted.
pub const ROOT: &str = "/run/kata-agent/scratch";
/// It takes a fraction of a second; a host may be busy, and may also never answer.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(60);

/// What the guest image must have for the disk that is attached, by the builder's names,
/// with the parameters of its modules; nothing if there is none.
#[must_use]
pub fn modules() -> Vec<(&'static str, String)> {
    let Ok(Some(disk)) = disk::attached() else {
        // What is wrong is told when the disk is made ready.
        return Vec::new();
    };
    let ram_disk = format!("rd_nr=1 rd_size={}", mapping::ram_disk_kib(&disk));
    let mut modules = vec![("brd", ram_disk)];
    let plain = ["dm-integrity", "dm-crypt", "ext4", "quota_v2"];
    modules.extend(plain.map(|feature| (feature, String::new())));
    modules
}

/// The file system does not wait for the disk, because nobody reads it after this VM;
/// tables that nobody used are neither written nor read; projects are held to their limits.
const OPTIONS: &std::ffi::CStr =
    c"noinit_itable,nobarrier,prjquota,errors=remount-ro,inode_readahead_blks=0";

/// The scratch disk cannot be used.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// Which disk it is.
    #[error("the scratch disk cannot be used")]
    Disk(#[from] DiskError),
    /// Its encryption or its integrity.
    #[error("the scratch disk cannot be protected")]
    Mapping(#[from] MappingError),
    /// Its size.
    #[error("the scratch disk cannot be used: {0}")]
    Size(String),
    /// A step of making it a file system.
    #[error("cannot {step} the scratch disk")]
    System {
        /// Which step.
        step: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> ScratchError {
    move |source| ScratchError::System { step, source }
}

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On a disk of so many MiB.
    Disk {
        /// Its size.
        mib: u64,
    },
    /// In the guest's memory.
    Memory,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { mib } => write!(f, "the scratch disk of {mib} MiB"),
            Self::Memory => f.write_str("the guest's memory for images"),
        }
    }
}

type Outcome = Result<Place, Arc<ScratchError>>;

/// The scratch disk, ready or on its way.
#[derive(Debug, Default)]
pub struct Scratch {
    preparing: Mutex<Option<Receiver<Result<Place, ScratchError>>>>,
    outcome: OnceLock<Outcome>,
}

impl Scratch {
    /// Memory, without looking for a disk: for an agent that is no guest's.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            outcome: Ok(Place::Memory).into(),
            ..Self::default()
        }
    }

    /// Starts to make the disk ready.
    #[must_use]
    pub fn start() -> Self {
        let (done, preparing) = sync_channel(1);
        let thread = thread::Builder::new().name("scratch".to_owned());
        // If nobody listens any more, it took too long, and that was told.
        match thread.spawn(move || done.send(prepare())) {
            Ok(_) => Self {
                preparing: Mutex::new(Some(preparing)),
                ..Self::default()
            },
            Err(source) => Self {
                outcome: Err(Arc::new(failed("start a thread for")(source))).into(),
                ..Self::default()
            },
        }
    }

    /// Where things go; waits until that is known.
    ///
    /// # Errors
    ///
    /// When there is a disk and it cannot be used.
    pub fn place(&self) -> Outcome {
        self.outcome.get_or_init(|| self.wait()).clone()
    }

    fn wait(&self) -> Outcome {
        let mut preparing = self
            .preparing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let lost = |why: &'static str| Err(Arc::new(failed("prepare")(io::Error::other(why))));
        let Some(preparing) = preparing.take() else {
            return lost("nobody prepares it");
        };
        match preparing.recv_timeout(PREPARE_TIME_MAX) {
            Ok(result) => result.map_err(Arc::new),
            Err(RecvTimeoutError::Timeout) => lost("the host's disk does not answer"),
            Err(RecvTimeoutError::Disconnected) => lost("the thread that prepares it panicked"),
        }
    }
}

fn prepare() -> Result<Place, ScratchError> {
    let result = try_prepare();
    if let Err(error) = &result {
        error!(
            error = error as &dyn StdError,
            "scratch disk cannot be used"
        );
    }
    result
}

fn try_prepare() -> Result<Place, ScratchError> {
    let started = Instant::now();
    let Some(disk) = disk::attached()? else {
        info!("no scratch disk: images and volumes are kept in memory");
        return Ok(Place::Memory);
    };
    let mapping = mapping::Mapping::of(&disk)?;
    make_file_system(&mapping)?;
    let root = Path::new(ROOT);
    std::fs::create_dir_all(root).map_err(failed("make a directory for"))?;
    // Programs and set-user-id bits of images count on the mounts that are made of
    // their layers, which have flags of their own.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    rustix::mount::mount(&mapping.path, root, "ext4", flags, OPTIONS)
        .map_err(|error| failed("mount")(error.into()))?;
    for name in ["image", "volumes"] {
        std::fs::create_dir(root.join(name)).map_err(failed("make a directory on"))?;
    }
    let mib = disk.bytes >> 20;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(
        mib,
        elapsed_ms, "scratch disk ready: images and volumes are kept there, encrypted"
    );
    Ok(Place::Disk { mib })
}

fn make_file_system(mapping: &mapping::Mapping) -> Result<(), ScratchError> {
    let mut identity = ext4::Identity {
        uuid: [0; 16],
        hash_seed: [0; 16],
        made: now(),
    };
    fill_random(&mut identity.uuid).map_err(failed("name"))?;
    fill_random(&mut identity.hash_seed).map_err(failed("name"))?;
    let writes = ext4::format(mapping.bytes, &identity);
    let writes = writes.map_err(|error| ScratchError::Size(error.to_string()))?;
    let device = File::options().write(true).open(&mapping.path);
    let device = device.map_err(failed("open"))?;
    for write in writes {
        let written = device.write_all_at(&write.bytes, write.offset);
        written.map_err(failed("write"))?;
    }
    device.sync_all().map_err(failed("write"))
}

fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preparing(prepare: fn() -> Result<Place, ScratchError>) -> Scratch {
        let (done, preparing) = sync_channel(1);
        thread::spawn(move || done.send(prepare()));
        Scratch {
            preparing: Mutex::new(Some(preparing)),
            ..Scratch::default()
        }
    }

    #[test]
    fn a_disk_that_cannot_be_used_is_an_error_again_and_again() {
        let scratch = preparing(|| Err(ScratchError::Disk(DiskError::ReadOnly)));
        for _ in 0..2 {
            let error = scratch.place().unwrap_err();
            assert!(matches!(*error, ScratchError::Disk(DiskError::ReadOnly)));
        }
    }

    #[test]
    fn a_thread_that_panics_is_no_reason_to_use_memory() {
        let scratch = preparing(|| panic!("on purpose"));
        assert!(scratch.place().is_err());
        assert!(Scratch::default().place().is_err());
    }
}
