//! What the host put into the guest and a container sees: measured when the container is
//! made, and again with each change.

use std::{
    collections::BTreeMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use agent_evidence::{Sha256Digest, log::FilesEntry};
use agent_measured::{Measured, NoteError};
use agent_protocol::id::ContainerId;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};

use crate::copies;

/// Deeper than any tree that a shim copies.
const DEPTH_MAX: usize = 64;
/// As many links as a kernel follows for one name.
const LINKS_MAX: usize = 40;

/// Where containers have which files.
#[derive(Debug, Default)]
pub(crate) struct HostFiles(Mutex<BTreeMap<PathBuf, Vec<PathBuf>>>);

impl HostFiles {
    /// Measures what a container is about to see at a destination. From then on changes
    /// below the source are measured too. Returns the digest.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or not be measured.
    pub(crate) fn give(
        &self,
        log: &Measured,
        (source, opened): (&Path, &OwnedFd),
        destination: &Path,
    ) -> io::Result<Sha256Digest> {
        let (at, digest) = (destination.display().to_string(), digest(opened)?);
        let identity = Sha256Digest::of(&[b"files\n", at.as_bytes(), b"\n", &digest.0]);
        log.note_counted(identity, |count| FilesEntry { at, digest, count })
            .map_err(io::Error::other)?;
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let destinations = given.entry(source.to_owned()).or_default();
        if !destinations.iter().any(|known| known == destination) {
            destinations.push(destination.to_owned());
        }
        Ok(digest)
    }

    /// Forgets what a container had that is gone.
    pub(crate) fn forget(&self, container: &ContainerId) {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|source, _| {
            let name = source.file_name().and_then(|name| name.to_str());
            !name.is_some_and(|name| copies::is_of(container, name))
        });
    }

    /// Measures a change before it is made, once for each place where a container sees it.
    ///
    /// # Errors
    ///
    /// When it cannot be measured; it must not be made then.
    pub(crate) fn change(
        &self,
        log: &Measured,
        path: &Path,
        after: Sha256Digest,
    ) -> Result<(), NoteError> {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, destinations) in given.iter() {
            let Ok(inner) = path.strip_prefix(source) else {
                continue;
            };
            let inner = inner.as_os_str().as_encoded_bytes();
            let item = Sha256Digest::of(&[inner, b"\n", &after.0]);
            for destination in destinations {
                log.note_change(&format!("files at {}", destination.display()), item)?;
            }
        }
        Ok(())
    }
}

/// The digest of a file, or of all that a directory shows: names, permissions, contents.
///
/// Links count as what they lead to, and names that begin with two dots not at all: so the
/// versions by which a kubelet swaps a volume do not tell equal ones apart.
fn digest(opened: &OwnedFd) -> io::Result<Sha256Digest> {
    let root = openat2(
        opened,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH,
    );
    match root {
        Ok(directory) => of_directory(&directory, &directory, Path::new(""), 0),
        Err(rustix::io::Errno::NOTDIR) => {
            // A handle of a file is opened again by its own name.
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(opened));
            of_file(File::open(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn of_directory(
    root: &OwnedFd,
    directory: &OwnedFd,
    path: &Path,
    depth: usize,
) -> io::Result<Sha256Digest> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("the host's files are nested too deeply"));
    }
    let mut lines = Vec::new();
    for name in names(directory)? {
        let path = path.join(&name);
        let found = match open_shown(root, path.clone()) {
            Ok(entry) if is_directory(&entry)? => of_directory(root, &entry, &path, depth + 1)?,
            Ok(entry) => of_file(File::from(entry))?,
            // A link to nothing is a name all the same, and so is a workload's socket.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NXIO) => Sha256Digest::ZERO,
            Err(error) => return Err(error.into()),
        };
        lines.push(format!("{found} {name}\n"));
    }
    let mode = fstat(directory)?.st_mode;
    let text = lines.concat();
    Ok(Sha256Digest::of(&[
        format!("{mode:o}\n").as_bytes(),
        text.as_bytes(),
    ]))
}

/// Opens what a name leads to, within the root.
///
/// The kernel follows no link of another user's in a directory that all can write to
/// (`fs.protected_symlinks`), and a kubelet makes such links; so those are followed here.
fn open_shown(root: &OwnedFd, mut path: PathBuf) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let link = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let open = |path: &Path, flags| openat2(root, path, flags, Mode::empty(), resolve);
    for _ in 0..LINKS_MAX {
        match open(&path, flags) {
            Err(refused @ rustix::io::Errno::ACCESS) => {
                let target = readlinkat(open(&path, link)?, c"", Vec::new());
                let target = target.map_err(|_| refused)?;
                path.pop();
                path.push(OsStr::from_bytes(target.as_bytes()));
            }
            other => return other,
        }
    }
    Err(rustix::io::Errno::LOOP)
}

fn is_directory(entry: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(entry)?.st_mode) == FileType::Directory)
}

fn of_file(file: File) -> io::Result<Sha256Digest> {
    let found = fstat(&file)?;
    let size = u64::try_from(found.st_size).unwrap_or(0);
    let content = Sha256Digest::of_all(file.take(size))?;
    let mode = format!("{:o}\n", found.st_mode);
    Ok(Sha256Digest::of(&[mode.as_bytes(), &content.0]))
}

/// The names of a directory, sorted, without those of its versions.
fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !name.to_bytes().starts_with(b"..") && name.as_c_str() != c"." {
            names.push(text(&name)?);
        }
    }
    names.sort();
    Ok(names)
}

/// Paths of `CopyFile` are text, so a name that is none was not copied.
fn text(name: &CStr) -> io::Result<String> {
    let text = name.to_str().map_err(io::Error::other)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use agent_evidence::log::Entry;

    use super::*;

    fn opened(path: &Path) -> OwnedFd {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).unwrap()
    }

    /// As a kubelet writes a ConfigMap.
    fn config_map(version: &str, value: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.path().join(version)).unwrap();
        fs::write(root.path().join(version).join("key"), value).unwrap();
        symlink(version, root.path().join("..data")).unwrap();
        symlink("..data/key", root.path().join("key")).unwrap();
        root
    }

    fn of(root: &Path) -> Sha256Digest {
        digest(&opened(root)).unwrap()
    }

    #[test]
    fn what_a_container_sees_has_the_digest_and_not_its_version() {
        let first = config_map("..2026_01", "a");
        assert_eq!(of(first.path()), of(config_map("..2026_02", "a").path()));
        assert_ne!(of(first.path()), of(config_map("..2026_01", "b").path()));
        let before = of(first.path());
        fs::write(first.path().join("more"), "").unwrap();
        assert_ne!(of(first.path()), before);
    }

    #[test]
    fn permissions_and_single_files_count() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("run.sh");
        fs::write(&file, "exit").unwrap();
        let before = (of(&file), of(root.path()));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let after = (of(&file), of(root.path()));
        assert_ne!(before.0, after.0);
        assert_ne!(before.1, after.1);
    }

    #[test]
    fn a_link_leads_nowhere_but_below_the_source() {
        let root = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", root.path().join("link")).unwrap();
        let outside = of(root.path());
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "x").unwrap();
        assert_ne!(of(root.path()), outside);
    }

    /// A token of a pod with `fsGroup` and `runAsUser`, as a kubelet writes it; only root can.
    #[test]
    fn a_link_of_another_user_in_a_directory_for_all_is_followed() {
        let root = config_map("..v1", "a");
        if std::os::unix::fs::lchown(root.path().join("key"), Some(1000), Some(2000)).is_err() {
            return;
        }
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o3777)).unwrap();
        let before = of(root.path());
        fs::write(root.path().join("..v1/key"), "b").unwrap();
        assert_ne!(of(root.path()), before);
    }

    #[test]
    fn a_change_below_what_a_container_sees_is_told_and_others_are_not() {
        let root = config_map("..v1", "a");
        let (files, log) = (HostFiles::default(), Measured::default());
        let source = opened(root.path());
        let (at, path) = (Path::new("/etc/app"), root.path());
        files.give(&log, (path, &source), at).unwrap();
        files.give(&log, (path, &source), at).unwrap();
        let change = Sha256Digest([1; 32]);
        files.change(&log, &path.join("..data"), change).unwrap();
        files.change(&log, Path::new("/elsewhere"), change).unwrap();
        let told = log.up_to_date().unwrap();
        let entries: Vec<_> = told
            .events()
            .iter()
            .map(|one| Entry::of(one).unwrap().unwrap())
            .collect();
        let [
            Entry::Files(first),
            Entry::Files(second),
            Entry::Change(change),
        ] = &entries[..]
        else {
            panic!("{entries:?}")
        };
        assert_eq!((first.count, second.count), (1, 2));
        assert_eq!(first.digest, second.digest);
        assert_eq!(
            (change.what.as_str(), change.count),
            ("files at /etc/app", 1)
        );
    }

    #[test]
    fn what_a_container_had_is_forgotten_with_it() {
        let root = tempfile::tempdir().unwrap();
        let name = |container: &str| root.path().join(format!("{container}-0123456789abcdef-x"));
        let (files, log) = (HostFiles::default(), Measured::default());
        for container in ["c1", "c2"] {
            fs::write(name(container), "x").unwrap();
            let source = opened(&name(container));
            files
                .give(&log, (&name(container), &source), Path::new("/x"))
                .unwrap();
        }
        files.forget(&ContainerId::parse("c1").unwrap());
        let known: Vec<_> = files.0.lock().unwrap().keys().cloned().collect();
        assert_eq!(known, [name("c2")]);
    }
}
