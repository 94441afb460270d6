//! Looking into a container's root file system without being led out of it.
//!
//! The image's author chooses what links there are; every path is resolved with
//! the root file system as its root (`openat2`, `RESOLVE_IN_ROOT`).

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};

/// A container's root directory.
#[derive(Debug)]
pub(super) struct Inside(OwnedFd);

impl Inside {
    /// Whether there is something at a path that a mount would hide: anything but a
    /// directory without entries.
    pub(super) fn has_content(&self, path: &Path) -> bool {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&self.0, relative, flags, Mode::empty(), resolve);
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) => return error != rustix::io::Errno::NOENT,
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&directory) else {
            return true;
        };
        entries
            .flatten()
            .any(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))
    }

    /// Opens a root file system.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, root, flags, Mode::empty())?))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(
            &self.0,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )?)
    }

    /// The first bytes of a regular file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is not a regular file.
    pub(super) fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        // A pipe in the image must not make the agent wait for a writer.
        let file = File::from(self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Makes a directory and its parents where they are not there yet.
    ///
    /// # Errors
    ///
    /// When something else has one of the names.
    pub(super) fn make_directories(&self, path: &Path) -> io::Result<()> {
        let mut parent = self.0.try_clone()?;
        let mut whole = std::path::PathBuf::new();
        for part in path.components() {
            let std::path::Component::Normal(name) = part else {
                continue;
            };
            whole.push(name);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            parent = match self.resolve(&whole, flags) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    mkdirat(&parent, name, Mode::from(0o755))?;
                    self.resolve(&whole, flags)?
                }
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(folder.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/", root.join("all")).unwrap();
        let inside = Inside::open(&root).unwrap();
        assert!(inside.read(Path::new("/etc/passwd"), 100).is_err());
        inside
            .make_directories(Path::new("/all/work/here"))
            .unwrap();
        assert!(root.join("work/here").is_dir());
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(CWD, &pipe, Mode::from(0o644)).unwrap();
        assert!(
            Inside::open(folder.path())
                .unwrap()
                .read(Path::new("pipe"), 1)
                .is_err()
        );
    }
}
