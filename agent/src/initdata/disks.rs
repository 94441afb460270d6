//! Looks for the disk: one among the virtio disks starts with the magic.
//!
//! A disk that cannot be read might be the one, so it is an error. What is no
//! initdata disk is left alone after eight bytes.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use agent_protocol::initdata::{
    DISK_BYTES_MAX, Initdata,
    disk::{MAGIC, unframe},
    packed::unpack,
};

use super::error::ScanError;

/// The initdata on the one disk that holds any.
pub(super) fn scan(blocks: &Path, devices: &Path) -> Result<Option<Initdata>, ScanError> {
    let mut found = Vec::new();
    for name in names(blocks)? {
        let read = || -> io::Result<Option<PathBuf>> {
            let path = devices.join(&name);
            Ok((start(&path)? == MAGIC).then_some(path))
        };
        match read() {
            Ok(path) => found.extend(path),
            Err(source) => return Err(ScanError::Read { disk: name, source }),
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [path] => {
            let content = content(path).map_err(|source| ScanError::Read {
                disk: path.display().to_string(),
                source,
            })?;
            Ok(Some(unpack(unframe(&content)?)?))
        }
        several => Err(ScanError::Several(several.len())),
    }
}

fn names(blocks: &Path) -> Result<Vec<String>, ScanError> {
    let entries = match fs::read_dir(blocks) {
        Ok(entries) => entries,
        // A kernel without block devices has no disks.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ScanError::List(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(ScanError::List)?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.starts_with("vd")) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The first bytes of a disk; zeros where it is shorter.
fn start(path: &Path) -> io::Result<[u8; MAGIC.len()]> {
    let mut start = [0; MAGIC.len()];
    let limit = u64::try_from(start.len()).unwrap_or(u64::MAX);
    let mut bytes = Vec::with_capacity(start.len());
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    for (to, from) in start.iter_mut().zip(bytes) {
        *to = from;
    }
    Ok(start)
}

/// All of a disk, or one byte more than it may have.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(DISK_BYTES_MAX).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agent_protocol::initdata::{Algorithm, disk::frame, packed::pack, write};

    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn with(disks: &[(&str, &[u8])]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            fs::create_dir(machine.0.path().join("dev")).unwrap();
            for (name, content) in disks {
                fs::create_dir_all(machine.0.path().join("block").join(name)).unwrap();
                fs::write(machine.0.path().join("dev").join(name), content).unwrap();
            }
            machine
        }

        fn scan(&self) -> Result<Option<Initdata>, ScanError> {
            scan(&self.0.path().join("block"), &self.0.path().join("dev"))
        }
    }

    fn disk() -> (Initdata, Vec<u8>) {
        let entries = BTreeMap::from([("aa.toml".to_owned(), "a = 1\n".to_owned())]);
        let document = write(Algorithm::Sha256, &entries).unwrap();
        let disk = frame(&pack(&document).unwrap()).unwrap();
        (document, disk)
    }

    #[test]
    fn the_one_disk_with_the_magic_is_read() {
        let (document, disk) = disk();
        let machine = Machine::with(&[
            ("vda", b"\0\0"),
            ("vdb", &disk),
            ("vdc", &[7; 4096]),
            ("loop0", &disk),
        ]);
        assert_eq!(machine.scan().unwrap(), Some(document));
    }

    #[test]
    fn without_such_a_disk_there_is_none() {
        assert!(Machine::with(&[]).scan().unwrap().is_none());
        let machine = Machine::with(&[("vda", b""), ("sda", &disk().1)]);
        assert!(machine.scan().unwrap().is_none());
    }

    #[test]
    fn two_disks_are_refused_even_if_equal() {
        let (_, disk) = disk();
        let machine = Machine::with(&[("vda", &disk), ("vdb", &disk)]);
        assert!(matches!(machine.scan(), Err(ScanError::Several(2))));
    }

    #[test]
    fn a_disk_that_cannot_be_read_is_refused() {
        let machine = Machine::with(&[("vda", &disk().1), ("vdb", b"")]);
        fs::remove_file(machine.0.path().join("dev/vdb")).unwrap();
        let error = machine.scan().unwrap_err().to_string();
        assert!(error.contains("vdb"), "{error}");
    }

    #[test]
    fn a_broken_disk_is_refused() {
        let (_, disk) = disk();
        let mut tail = disk.clone();
        tail.push(1);
        let large = [disk.clone(), vec![0; DISK_BYTES_MAX]].concat();
        let mut damaged = disk.clone();
        damaged[30] ^= 0xff;
        for (content, what) in [
            (&disk[..40], "ends before"),
            (&tail, "more than zeros"),
            (&large, "larger than"),
            (&damaged, "gzip"),
        ] {
            let error = Machine::with(&[("vda", content)]).scan().unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
