//! The disk that a pod's guest keeps images and volumes on: a sparse file of the host.
//!
//! It takes space as the guest fills it, and goes with the pod. The guest encrypts what
//! it writes with a key that only the guest has, so the file needs no protection, and
//! is of no use once the VM has ended.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use agent_protocol::{id::SandboxId, limits::SCRATCH_DISK_SERIAL};
use shim_configuration::Qemu;
use shim_hypervisor::Disk;
use thiserror::Error;

use crate::record::{Record, RecordError, StateDir};

/// The smallest disk that the guest's file system fits on.
const MIB_MIN: u32 = 16;
/// The largest disk that the guest's file system can use.
const MIB_MAX: u32 = 4 << 20;
const MIB: u64 = 1 << 20;
const SUFFIX: &str = ".img";

/// Why a pod has no scratch disk.
#[derive(Debug, Error)]
pub(crate) enum ScratchError {
    /// The configured size is not one that a disk can have.
    #[error(
        "scratch_disk_mib is {0}: set it to 0, for images in the guest's memory, or from {MIB_MIN} to {MIB_MAX}"
    )]
    Size(u32),
    /// The disk cannot be written into the record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The file cannot be made.
    #[error("cannot make {path}, the pod's scratch disk of {mib} MiB")]
    Make {
        /// The file.
        path: PathBuf,
        /// Its size.
        mib: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Makes the disk that the configuration wants for a pod, if it wants one, and records it
/// before; whoever reads the record removes it.
///
/// # Errors
///
/// [`ScratchError`] says whether the size, the record or the file was the obstacle.
pub(crate) fn lend(
    qemu: &Qemu,
    sandbox: &SandboxId,
    record: &mut Record,
    state: &StateDir,
) -> Result<Option<Disk>, ScratchError> {
    let Some(plan) = Plan::of(qemu, sandbox)? else {
        return Ok(None);
    };
    sweep(&qemu.scratch_disk_directory, |sandbox| {
        StateDir::of(sandbox).path().exists()
    });
    record.scratch_disk = Some(plan.path.clone());
    record.save(state)?;
    plan.make().map(Some)
}

/// A disk that is decided upon and not made yet.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    path: PathBuf,
    mib: u32,
}

impl Plan {
    fn of(qemu: &Qemu, sandbox: &SandboxId) -> Result<Option<Self>, ScratchError> {
        match qemu.scratch_disk_mib {
            0 => Ok(None),
            mib @ MIB_MIN..=MIB_MAX => Ok(Some(Self {
                path: qemu
                    .scratch_disk_directory
                    .join(format!("{sandbox}{SUFFIX}")),
                mib,
            })),
            other => Err(ScratchError::Size(other)),
        }
    }

    fn make(&self) -> Result<Disk, ScratchError> {
        self.make_file().map_err(|source| ScratchError::Make {
            path: self.path.clone(),
            mib: self.mib,
            source,
        })?;
        Ok(Disk {
            path: self.path.clone(),
            read_only: false,
            serial: Some(SCRATCH_DISK_SERIAL.to_owned()),
        })
    }

    fn make_file(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        // Two VMs on one file would destroy each other's.
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        file.set_len(u64::from(self.mib) * MIB)
    }
}

/// Removes disks of pods that have no state directory any more. State directories lie in
/// the node's memory, so a node that was switched off has lost them and kept the disks. A
/// pod has its state directory before its disk is made.
fn sweep(directory: &Path, is_remembered: impl Fn(&SandboxId) -> bool) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_suffix(SUFFIX));
        let forgotten = name
            .and_then(|name| SandboxId::parse(name).ok())
            .is_some_and(|sandbox| !is_remembered(&sandbox));
        if forgotten {
            let removed = remove(&path);
            tracing::info!(disk = %path.display(), ?removed, "scratch disk of a lost pod");
        }
    }
}

/// Removes a disk that was recorded, whether or not it was made.
///
/// # Errors
///
/// The error of the file system if the file is there and cannot be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn wanted(directory: &Path, mib: u32) -> Qemu {
        Qemu {
            scratch_disk_mib: mib,
            scratch_disk_directory: directory.to_owned(),
            ..Qemu::default()
        }
    }

    fn plan(directory: &Path, mib: u32) -> Result<Option<Plan>, ScratchError> {
        Plan::of(&wanted(directory, mib), &SandboxId::parse("s1").unwrap())
    }

    #[test]
    fn a_disk_is_as_large_as_asked_and_takes_no_space() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("scratch");
        let plan = plan(&directory, 512).unwrap().unwrap();
        assert_eq!(plan.path, directory.join("s1.img"));
        let disk = plan.make().unwrap();
        assert!(!disk.read_only && disk.serial.as_deref() == Some("kata-cc-scratch"));
        let metadata = fs::metadata(&disk.path).unwrap();
        assert_eq!(metadata.len(), 512 << 20);
        assert_eq!((metadata.blocks(), metadata.mode() & 0o777), (0, 0o600));
        let mut record = Record::new(None, None);
        let (qemu, sandbox) = (wanted(&directory, 512), SandboxId::parse("s1").unwrap());
        let state = StateDir::at(&folder.path().join("s1"));
        assert!(lend(&qemu, &sandbox, &mut record, &state).is_ok());
        let recorded = Record::load(&state).unwrap().unwrap().scratch_disk;
        assert_eq!(recorded.as_ref(), Some(&disk.path));
        let twice = plan.make().unwrap_err().to_string();
        assert!(twice.contains("s1.img") && twice.contains("512"), "{twice}");
        remove(&disk.path).unwrap();
        assert!(!disk.path.exists());
        remove(&disk.path).unwrap();
    }

    #[test]
    fn disks_of_forgotten_pods_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["lost.img", "known.img", "note.txt", ".img"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        sweep(folder.path(), |sandbox| sandbox.as_str() == "known");
        let names = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".img", "known.img", "note.txt"]);
    }

    #[test]
    fn no_disk_is_wanted_by_zero_and_a_tiny_or_huge_one_by_nobody() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(plan(nowhere, 0).unwrap(), None);
        for mib in [1, 15, MIB_MAX + 1, u32::MAX] {
            assert!(plan(nowhere, mib).is_err(), "{mib}");
        }
    }
}
