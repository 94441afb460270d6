//! What a process of a VM finds when it looks around: its files and nothing else.
//!
//! A guest that breaks out of QEMU finds itself in a root of its own: programs' libraries and
//! the few files of this VM, read-only, no other process, no network, none of the node's
//! sockets. The world is put together by the thread that then forks the process, in namespaces
//! that the thread alone enters, so nothing of it is seen from outside and nothing is left when
//! the process ends.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, pivot_root},
};

/// Where programs find libraries; in a merged file system some are links to others.
const LIBRARIES: [&str; 5] = [
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
];
/// Where Debian's QEMU and its packages keep firmware and boot code.
const DATA: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// Which files a process finds.
#[derive(Debug)]
pub(crate) struct World {
    /// An empty directory to put it together on.
    root: PathBuf,
    files: Vec<(PathBuf, Access)>,
}

/// What a process may do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    /// Also make files, if it is a directory.
    Write,
    /// Speak to a device, as far as its permissions go.
    Device,
}

impl World {
    /// Holds a program and what programs of that kind need; `root` is an empty directory.
    pub(crate) fn of(program: &Path, root: PathBuf) -> Self {
        let mut world = Self {
            root,
            files: Vec::new(),
        };
        for path in LIBRARIES.iter().chain(&DATA) {
            if Path::new(path).exists() {
                world.read((*path).as_ref());
            }
        }
        // A program that was installed aside has its libraries and data beside it.
        let prefix = program.parent().and_then(Path::parent);
        let prefix = prefix.filter(|prefix| !["/", "/usr"].map(Path::new).contains(prefix));
        for directory in ["lib", "lib64", "share"] {
            let beside = prefix.map(|prefix| prefix.join(directory));
            if let Some(beside) = beside.filter(|beside| beside.is_dir()) {
                world.read(&beside);
            }
        }
        world.read(program);
        world
    }

    /// Adds a file or directory that is only read.
    pub(crate) fn read(&mut self, path: &Path) {
        self.files.push((path.to_owned(), Access::Read));
    }

    /// Adds a directory that files are made in.
    pub(crate) fn write(&mut self, path: &Path) {
        self.files.push((path.to_owned(), Access::Write));
    }

    /// Adds a device.
    pub(crate) fn device(&mut self, path: &Path) {
        self.files.push((path.to_owned(), Access::Device));
    }

    /// Takes the calling thread, which must be nobody else's, into this world for good.
    ///
    /// # Errors
    /// What the system said, with the path it said it of.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let namespaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        unshare(namespaces).map_err(at("make namespaces for", &self.root))?;
        // The thread's own since the namespaces are.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, "/", NONE, private, NONE).map_err(at("make private", Path::new("/")))?;
        mount(
            Some("none"),
            &self.root,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=0755,size=1m,nr_inodes=4096"),
        )
        .map_err(at("mount a root on", &self.root))?;
        for (path, access) in &self.files {
            self.add(path, *access)?;
        }
        self.turn()
    }

    fn add(&self, path: &Path, access: Access) -> io::Result<()> {
        let relative = path.strip_prefix("/").map_err(io::Error::other)?;
        let inside = self.root.join(relative);
        if access == Access::Read && inside.exists() {
            // A directory that is there already holds it.
            return Ok(());
        }
        if let Some(parent) = inside.parent() {
            fs::create_dir_all(parent).map_err(at("make a directory for", path))?;
        }
        let is_library = LIBRARIES.map(Path::new).contains(&path);
        if is_library && path.is_symlink() {
            let target = fs::read_link(path).map_err(at("read link", path))?;
            return symlink(target, inside).map_err(at("make link", path));
        }
        if path.is_dir() {
            fs::create_dir(&inside).map_err(at("make directory", path))?;
        } else {
            File::create(&inside).map_err(at("make file", path))?;
        }
        mount(Some(path), &inside, NONE, MsFlags::MS_BIND, NONE).map_err(at("bind", path))?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID;
        let flags = flags
            | match access {
                Access::Read => MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
                Access::Write => MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                Access::Device => MsFlags::MS_NOEXEC,
            };
        mount(NONE, &inside, NONE, flags, NONE).map_err(at("restrict", path))
    }

    /// Makes the new root the root, and lets go of the old one.
    fn turn(&self) -> io::Result<()> {
        let failed = at("turn to", &self.root);
        chdir(&self.root).map_err(&failed)?;
        pivot_root(".", ".").map_err(&failed)?;
        umount2(".", MntFlags::MNT_DETACH).map_err(&failed)?;
        chdir("/").map_err(&failed)?;
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        mount(NONE, "/", NONE, flags, NONE).map_err(&failed)
    }
}

const NONE: Option<&str> = None;

/// Says what was tried with which file, keeping the kind of the error.
fn at<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl Fn(E) -> io::Error {
    let path = path.to_owned();
    move |error| {
        let error = error.into();
        let text = format!("cannot {step} {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    }
}

/// Makes the directory that a world is put together on.
pub(crate) fn make_root(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a closure sees in a world, from a thread of its own.
    fn seen<T: Send + 'static>(
        world: World,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let looked = std::thread::spawn(move || {
            if let Err(error) = world.enter() {
                // Only root makes namespaces, and not everywhere.
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                eprintln!("skipped: {error}");
                return None;
            }
            Some(look())
        });
        looked.join().unwrap()
    }

    fn entries(path: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_world_holds_its_files_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for directory in ["root", "sockets", "private"] {
            fs::create_dir(path(directory)).unwrap();
        }
        fs::write(path("kernel"), "k").unwrap();
        fs::write(path("private/key"), "secret").unwrap();
        let mut world = World::of(Path::new("/bin/true"), path("root"));
        world.read(&path("kernel"));
        world.write(&path("sockets"));
        world.device(Path::new("/dev/urandom"));
        let base = folder.path().to_owned();
        let looked = seen(world, move || {
            assert_eq!(entries(base.to_str().unwrap()), ["kernel", "sockets"]);
            assert_eq!(fs::read(base.join("kernel")).unwrap(), b"k");
            assert!(!base.join("private/key").exists());
            for absent in ["/etc/passwd", "/proc/self", "/run", "/root", "/dev/null"] {
                assert!(!Path::new(absent).exists(), "{absent}");
            }
            assert_eq!(entries("/dev"), ["urandom"]);
            assert!(File::open("/dev/urandom").is_ok());
            // Read-only is read-only, for root too.
            for file in [base.join("kernel"), base.join("new"), "/new".into()] {
                let error = fs::write(&file, "x").unwrap_err();
                let expected = io::ErrorKind::ReadOnlyFilesystem;
                assert_eq!(error.kind(), expected, "{}", file.display());
            }
            fs::write(base.join("sockets/s"), "x").unwrap();
        });
        if looked.is_some() {
            assert!(path("sockets/s").exists());
            // Nothing was mounted for anybody else.
            assert_eq!(entries(path("root").to_str().unwrap()).len(), 0);
            fs::remove_dir(path("root")).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        make_root(&root).unwrap();
        make_root(&root).unwrap();
        let mut world = World::of(Path::new("/bin/true"), root);
        world.read(Path::new("/nonexistent/kernel"));
        let entered = std::thread::spawn(move || world.enter()).join().unwrap();
        let text = entered.unwrap_err().to_string();
        assert!(
            text.contains("/nonexistent/kernel") || text.contains("namespaces"),
            "{text}"
        );
    }
}
