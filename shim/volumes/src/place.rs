//! A file or directory of the node, opened once.
//!
//! Whoever else can write to a volume may put a link where a directory was, at any moment. So
//! a mount's source becomes a descriptor when the mount is planned, and all that is below is
//! found beneath that descriptor, never by a path from the root again. No link is followed:
//! containerd has resolved those of a pod's YAML, and one that is there all the same came
//! later. What is opened is looked at before it is read, so that no device or pipe is touched.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat},
};

/// What becomes of mounts below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// They belong to it, as with `rbind`.
    Included,
    /// They are refused.
    Refused,
}

/// A file or directory of the node, held open; clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Place {
    file: Arc<File>,
    path: PathBuf,
    mounts: Mounts,
}

impl Place {
    /// Opens a path without following any link.
    ///
    /// # Errors
    ///
    /// The system's, or a sentence about the link.
    pub fn open(path: &Path, mounts: Mounts) -> io::Result<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let opened = openat2(AT_FDCWD, path, how).map_err(|errno| match errno {
            Errno::ELOOP => io::Error::other(
                "a part of the path is a symbolic link, which may lead elsewhere at any time: \
                 name the place that it leads to",
            ),
            other => other.into(),
        })?;
        Ok(Self {
            file: Arc::new(opened.into()),
            path: path.to_owned(),
            mounts,
        })
    }

    /// The path by which it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// The number of the mount that it lies on, as the list of mounts has it.
    pub(crate) fn mount_id(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.file.as_raw_fd()))?;
        let mut lines = text.lines();
        let id = lines.find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        id.ok_or_else(|| io::Error::other("the kernel does not say on which mount it lies"))
    }

    /// Reads a regular file, up to a number of bytes.
    ///
    /// # Errors
    ///
    /// The system's, or that it is no regular file.
    pub fn read(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = readable(&self.file)?;
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Replaces what a regular file holds.
    ///
    /// # Errors
    ///
    /// The system's, or that it is no regular file.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).truncate(true);
        reopen(&self.file, &mut options)?.write_all(bytes)
    }

    /// The node itself, for a walk that begins here.
    pub(crate) fn root(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// What has this name beneath it, a link as the link. Nothing is read of it yet.
    pub(crate) fn below(&self, relative: &Path) -> io::Result<File> {
        if relative.as_os_str().is_empty() {
            return self.root();
        }
        self.child(&self.file, relative)
    }

    /// What has this name beneath a directory of this place.
    pub(crate) fn child(&self, directory: impl AsFd, name: &Path) -> io::Result<File> {
        let mut resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if self.mounts == Mounts::Refused {
            resolve |= ResolveFlag::RESOLVE_NO_XDEV;
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(resolve);
        let opened = openat2(directory, name, how).map_err(|errno| match errno {
            Errno::EXDEV => {
                io::Error::other("another file system is mounted there, and the mount is no rbind")
            }
            other => other.into(),
        })?;
        Ok(opened.into())
    }

    /// Target of the link `..data` or the like, if there is one.
    pub(crate) fn link(&self, name: &str) -> Option<PathBuf> {
        target(&self.child(&self.file, Path::new(name)).ok()?).ok()
    }
}

/// Target of a link that was opened as such.
pub(crate) fn target(link: &File) -> io::Result<PathBuf> {
    Ok(readlinkat(link, "")?.into())
}

/// A regular file, for reading.
pub(crate) fn readable(file: &File) -> io::Result<File> {
    reopen(file, OpenOptions::new().read(true))
}

/// Opens the very file that a descriptor holds; its name is not looked up again.
fn reopen(file: &File, options: &mut OpenOptions) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let held = format!("/proc/self/fd/{}", file.as_raw_fd());
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(held)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::mount::MsFlags;

    use super::*;
    use crate::tests::{mount_at, with_own_mounts};

    #[test]
    fn no_link_is_followed_to_a_place_or_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("volume/d")).unwrap();
        fs::write(root.join("volume/d/f"), "mine").unwrap();
        symlink("volume", root.join("link")).unwrap();
        symlink("d", root.join("volume/l")).unwrap();
        for linked in ["link", "link/d/f", "volume/l/f"] {
            let error = Place::open(&root.join(linked), Mounts::Included).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        let place = Place::open(&root.join("volume"), Mounts::Included).unwrap();
        let found = place.below(Path::new("d/f")).unwrap();
        assert!(found.metadata().unwrap().is_file());
        let link = place.below(Path::new("l")).unwrap();
        assert_eq!(target(&link).unwrap(), Path::new("d"));
        for leads_out in ["l/f", "../link", "/etc/passwd", "d/../../volume/d/f"] {
            assert!(place.below(Path::new(leads_out)).is_err(), "{leads_out}");
        }
    }

    #[test]
    fn only_regular_files_are_read_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let fifo = root.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [fifo.as_path(), &root, Path::new("/dev/null")] {
            let place = Place::open(path, Mounts::Included).unwrap();
            assert!(place.read(10).is_err(), "{}", path.display());
            assert!(place.write(b"x").is_err(), "{}", path.display());
        }
        let file = root.join("file");
        fs::write(&file, "a longer text").unwrap();
        let place = Place::open(&file, Mounts::Included).unwrap();
        // The name may mean something else by now; the place stays what it was.
        fs::rename(&file, root.join("moved")).unwrap();
        symlink("/etc/passwd", &file).unwrap();
        assert_eq!(place.read(8).unwrap(), b"a longer");
        place.write(b"short").unwrap();
        assert_eq!(fs::read(root.join("moved")).unwrap(), b"short");
    }

    #[test]
    fn mounts_below_belong_to_a_recursive_bind_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("m")).unwrap();
        with_own_mounts(move || {
            let point = root.join("m");
            mount_at(None, &point, Some("tmpfs"), MsFlags::empty(), None);
            fs::write(root.join("m/f"), "below").unwrap();
            let below = |mounts| {
                Place::open(&root, mounts)
                    .unwrap()
                    .below(Path::new("m/f"))
                    .map_err(|error| error.to_string())
            };
            assert!(below(Mounts::Included).is_ok());
            assert!(below(Mounts::Refused).unwrap_err().contains("rbind"));
        });
    }
}
