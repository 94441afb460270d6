//! Finds the scratch disk: the one block device that says so in its serial number.
//!
//! The host chooses the disk and its serial number. The guest does not depend on which disk
//! it is: it reads only what it wrote there itself, and writes only ciphertext. If there are
//! two such disks, the guest uses neither.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::limits::SCRATCH_DISK_SERIAL;
use thiserror::Error;

const SYSFS: &str = "/sys/block";
/// Units of the `size` attribute, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// The scratch disk cannot be told.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The kernel does not say which disks there are.
    #[error("cannot read {path:?}")]
    Read {
        /// Where it should.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Which one?
    #[error("the host attached {0} disks with the serial number {SCRATCH_DISK_SERIAL:?}")]
    Several(usize),
    /// It cannot be written.
    #[error("the host attached it read-only")]
    ReadOnly,
    /// An attribute of it is not what the kernel writes.
    #[error("cannot understand {0:?}")]
    Attribute(PathBuf),
}

/// A disk that asks to be the scratch disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    /// `major:minor`, as device mapper takes it.
    pub(super) device: String,
    /// Its size.
    pub(super) bytes: u64,
}

/// The scratch disk, if there is one.
pub(super) fn attached() -> Result<Option<Disk>, DiskError> {
    find(Path::new(SYSFS))
}

fn find(root: &Path) -> Result<Option<Disk>, DiskError> {
    let failed = |source| DiskError::Read {
        path: root.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Most kinds of disk have no serial number here.
        let serial = fs::read(path.join("serial")).unwrap_or_default();
        if serial.trim_ascii() == SCRATCH_DISK_SERIAL.as_bytes() {
            found.push(path);
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [path] => look(path).map(Some),
        several => Err(DiskError::Several(several.len())),
    }
}

fn look(path: &Path) -> Result<Disk, DiskError> {
    let attribute = |name: &str| {
        let path = path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok((text.trim().to_owned(), path)),
            Err(source) => Err(DiskError::Read { path, source }),
        }
    };
    if attribute("ro")?.0 != "0" {
        return Err(DiskError::ReadOnly);
    }
    let (size, at) = attribute("size")?;
    let bytes = size.parse::<u64>().ok();
    let bytes = bytes.and_then(|sectors| sectors.checked_mul(SECTOR_BYTES));
    let (device, _) = attribute("dev")?;
    Ok(Disk {
        device,
        bytes: bytes.ok_or(DiskError::Attribute(at))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(root: &Path, name: &str, serial: Option<&str>, read_only: &str, size: &str) {
        let path = root.join(name);
        fs::create_dir(&path).unwrap();
        if let Some(serial) = serial {
            fs::write(path.join("serial"), serial).unwrap();
        }
        for (name, text) in [("ro", read_only), ("size", size), ("dev", "254:16\n")] {
            fs::write(path.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_disk_that_says_so_is_found_among_others() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path()).unwrap(), None);
        disk(root.path(), "vda", Some("initdata"), "1\n", "8\n");
        disk(root.path(), "ram0", None, "0\n", "8\n");
        disk(root.path(), "vdx", Some("kata-cc-scratch-2"), "0\n", "8\n");
        assert_eq!(find(root.path()).unwrap(), None);
        disk(
            root.path(),
            "vdb",
            Some("kata-cc-scratch"),
            "0\n",
            "65536\n",
        );
        let expected = Disk {
            device: "254:16".into(),
            bytes: 32 << 20,
        };
        assert_eq!(find(root.path()).unwrap(), Some(expected));
    }

    #[test]
    fn two_disks_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for name in ["vda", "vdb"] {
            disk(root.path(), name, Some("kata-cc-scratch"), "0", "65536");
        }
        assert!(matches!(find(root.path()), Err(DiskError::Several(2))));
    }

    #[test]
    fn a_disk_that_cannot_be_used_is_refused() {
        for (read_only, size, word) in [
            ("1\n", "65536\n", "read-only"),
            ("0\n", "-1\n", "size"),
            ("0\n", "18446744073709551615\n", "size"),
            ("", "65536\n", "read-only"),
        ] {
            let root = tempfile::tempdir().unwrap();
            disk(root.path(), "vda", Some("kata-cc-scratch"), read_only, size);
            let text = find(root.path()).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
    }
}
