//! Files that the host puts into the guest: configuration, secrets, name servers.
//!
//! All of it lands below [`SHARED_ROOT`]. Names are resolved there with
//! `openat2` and no links, whatever links the host has made before. A regular file
//! is written beside its place and renamed when all its bytes are there, so a
//! reader sees the old content or the new, and a copy that stops half-way changes
//! nothing.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
};

use agent_evidence::Sha256Digest;
use agent_measured::NoteError;
use agent_protocol::path::GuestPath;
use agent_requests::{CopyFile, FileKind, FileOwner, paths::SHARED_ROOT};
use policy_engine::Permit;
use rustix::{
    fs::{
        AtFlags, Mode, OFlags, RenameFlags, chownat, fchmod, mkdirat, openat2, renameat_with,
        symlinkat, unlinkat,
    },
    io::Errno,
};
use thiserror::Error;

use crate::{
    shared_root::{
        Step, StepError, ids, make_parents, open_directory, open_root, resolve, set_owner, step,
    },
    table::Containers,
    versions,
};

/// Ends the name of a file that is not complete; no name from a shim does.
const PART_SUFFIX: &str = ".kata-part";

/// A file cannot be put into the guest.
#[derive(Debug, Error)]
#[error("cannot {step} {path}")]
pub struct CopyError {
    /// What was tried.
    pub step: &'static str,
    /// Where the file was to be.
    pub path: GuestPath,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl Containers {
    /// Puts a file, or a piece of one, in its place. What a container sees is measured first.
    ///
    /// # Errors
    ///
    /// [`CopyError`] names the step that failed; what was there before is still there.
    pub fn copy(&self, permit: Permit<CopyFile>) -> Result<(), CopyError> {
        let replaces = permit.grants().host_files_change;
        let request = permit.into_request();
        let path = request.path.clone();
        let rules = Rules {
            replaces,
            measure: &|after| self.host_files.change(&self.log, path.as_ref(), after),
        };
        copy_below(Path::new(SHARED_ROOT), request, &rules).map_err(|StepError { step, source }| {
            CopyError {
                step,
                path: path.clone(),
                source,
            }
        })
    }
}

/// What a copy keeps to.
struct Rules<'a> {
    /// Whether a file that has the name already gives way.
    replaces: bool,
    /// Notes what will be in the place of the copy.
    measure: &'a dyn Fn(Sha256Digest) -> Result<(), NoteError>,
}

impl Rules<'_> {
    fn measured(&self, parts: &[&[u8]]) -> Step<()> {
        let noted = (self.measure)(Sha256Digest::of(parts));
        step("measure", noted.map_err(io::Error::other))
    }

    /// Gives a complete file its name.
    fn put(&self, parent: &OwnedFd, part: &OsString, name: &str) -> Step<()> {
        let flags = if self.replaces {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        step(
            "put in place",
            renameat_with(parent, part, parent, name, flags),
        )
    }
}

fn copy_below(root: &Path, request: CopyFile, rules: &Rules<'_>) -> Step<()> {
    let relative = request.path.below(SHARED_ROOT).unwrap_or_default();
    let (parents, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    let root = step("open the root of", open_root(root))?;
    let parent = make_parents(root, parents, request.directory_mode, request.owner)?;
    match request.kind {
        FileKind::Directory { mode } => {
            rules.measured(&[format!("directory {mode:o}").as_bytes()])?;
            directory(&parent, name, mode, request.owner)
        }
        FileKind::Symlink { target } => {
            rules.measured(&[b"link ", target.as_bytes()])?;
            link(&parent, name, &target, request.owner, rules)?;
            if rules.replaces && name == versions::LINK && !parents.is_empty() {
                // What goes is told by the link, which was measured.
                let kept = versions::keep_only(&parent, &target);
                step("remove old versions beside", kept)?;
            }
            Ok(())
        }
        FileKind::Regular {
            mode,
            offset,
            size,
            bytes,
        } => {
            let chunk = Chunk {
                offset,
                size,
                bytes: &bytes,
            };
            regular(&parent, name, (mode, request.owner), &chunk, rules)
        }
    }
}

fn directory(parent: &OwnedFd, name: &str, mode: u32, owner: FileOwner) -> Step<()> {
    match mkdirat(parent, name, Mode::from(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return step("make directory", Err(error)),
    }
    let directory = step("open directory", open_directory(parent, name))?;
    step("set the owner of", set_owner(&directory, owner))?;
    step("set the mode of", fchmod(&directory, Mode::from(mode)))
}

/// A link is complete from the start, so it replaces the old one by a rename.
fn link(
    parent: &OwnedFd,
    name: &str,
    target: &str,
    owner: FileOwner,
    rules: &Rules<'_>,
) -> Step<()> {
    let part = part_of(name);
    remove(parent, &part)?;
    step("make link", symlinkat(target, parent, &part))?;
    let (uid, gid) = ids(owner);
    step(
        "set the owner of",
        chownat(parent, &part, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    )?;
    rules.put(parent, &part, name)
}

struct Chunk<'a> {
    offset: u64,
    size: u64,
    bytes: &'a [u8],
}

fn regular(
    parent: &OwnedFd,
    name: &str,
    (mode, owner): (u32, FileOwner),
    chunk: &Chunk<'_>,
    rules: &Rules<'_>,
) -> Step<()> {
    let part = part_of(name);
    // A workload may have put a pipe in its place, which would wait for a reader.
    let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if chunk.offset == 0 {
        remove(parent, &part)?;
        flags |= OFlags::CREATE | OFlags::EXCL;
    }
    let opened = openat2(parent, &part, flags, create_mode(flags), resolve());
    let file = File::from(step("open", opened)?);
    let found = step("look at", file.metadata())?;
    if !found.is_file() || found.len() != chunk.offset {
        return step(
            "continue",
            Err(io::Error::other("the piece does not follow the one before")),
        );
    }
    step("write", file.write_all_at(chunk.bytes, chunk.offset))?;
    let end = chunk.offset.saturating_add(chunk.bytes.len() as u64);
    if end < chunk.size {
        return Ok(());
    }
    let whole = (&file).seek(SeekFrom::Start(0));
    let content = step("read", whole.and_then(|_| Sha256Digest::of_all(&file)))?;
    rules.measured(&[format!("file {mode:o} ").as_bytes(), &content.0])?;
    step("set the owner of", set_owner(&file, owner))?;
    step("set the mode of", fchmod(&file, Mode::from(mode)))?;
    rules.put(parent, &part, name)
}

/// `openat2` refuses a mode when nothing is made.
fn create_mode(flags: OFlags) -> Mode {
    if flags.contains(OFlags::CREATE) {
        Mode::from(0o600)
    } else {
        Mode::empty()
    }
}

fn part_of(name: &str) -> OsString {
    let mut part = OsString::from(name);
    part.push(PART_SUFFIX);
    part
}

fn remove(parent: &OwnedFd, name: &OsString) -> Step<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => step("clear the place of", Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    const NOBODY: FileOwner = FileOwner {
        uid: None,
        gid: None,
    };

    fn put(root: &Path, name: &str, kind: FileKind) -> Step<()> {
        put_by(root, name, kind, true)
    }

    fn put_by(root: &Path, name: &str, kind: FileKind, replaces: bool) -> Step<()> {
        let measure = &|_| Ok(());
        let path = GuestPath::parse(&format!("{SHARED_ROOT}/{name}")).unwrap();
        copy_below(
            root,
            CopyFile {
                path,
                kind,
                directory_mode: Some(0o750),
                owner: NOBODY,
            },
            &Rules { replaces, measure },
        )
    }

    fn piece(offset: u64, size: u64, bytes: &[u8]) -> FileKind {
        FileKind::Regular {
            mode: 0o640,
            offset,
            size,
            bytes: bytes.into(),
        }
    }

    #[test]
    fn what_cannot_be_measured_does_not_happen() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "f", piece(0, 3, b"old")).unwrap();
        let path = GuestPath::parse(&format!("{SHARED_ROOT}/f")).unwrap();
        let request = CopyFile {
            path,
            kind: piece(0, 3, b"new"),
            directory_mode: None,
            owner: NOBODY,
        };
        let full = || NoteError::Event(agent_evidence::log::EventError::Full);
        let rules = Rules {
            replaces: true,
            measure: &|_| Err(full()),
        };
        assert!(copy_below(root.path(), request, &rules).is_err());
        assert_eq!(fs::read_to_string(root.path().join("f")).unwrap(), "old");
    }

    #[test]
    fn without_a_grant_what_is_there_stays() {
        let root = tempfile::tempdir().unwrap();
        let link = |target: &str| FileKind::Symlink {
            target: target.to_owned(),
        };
        for replaces in [false, true] {
            let name = format!("replaced-{replaces}");
            put_by(root.path(), &name, piece(0, 3, b"old"), replaces).unwrap();
            let data = format!("{name}-data");
            put_by(root.path(), &data, link("v1"), replaces).unwrap();
            let changed = put_by(root.path(), &name, piece(0, 3, b"new"), replaces);
            let swapped = put_by(root.path(), &data, link("v2"), replaces);
            assert_eq!((changed.is_ok(), swapped.is_ok()), (replaces, replaces));
            let (text, version) = if replaces {
                ("new", "v2")
            } else {
                ("old", "v1")
            };
            assert_eq!(fs::read_to_string(root.path().join(name)).unwrap(), text);
            let target = fs::read_link(root.path().join(data)).unwrap();
            assert_eq!(target, Path::new(version));
        }
    }

    #[test]
    fn a_file_appears_when_its_last_piece_arrives() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("a/b/hosts");
        put(root.path(), "a/b/hosts", piece(0, 6, b"abc")).unwrap();
        assert!(!place.exists());
        put(root.path(), "a/b/hosts", piece(3, 6, b"def")).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"abcdef");
        assert_eq!(
            fs::metadata(&place).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }

    #[test]
    fn the_old_content_stays_until_the_new_is_complete() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "f", piece(0, 3, b"old")).unwrap();
        put(root.path(), "f", piece(0, 6, b"new")).unwrap();
        assert_eq!(fs::read(root.path().join("f")).unwrap(), b"old");
        assert!(put(root.path(), "f", piece(5, 6, b"x")).is_err());
        put(root.path(), "f", piece(3, 6, b"er!")).unwrap();
        assert_eq!(fs::read(root.path().join("f")).unwrap(), b"newer!");
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "f", piece(0, 6, b"abc")).unwrap();
        let part = root.path().join(part_of("f"));
        fs::remove_file(&part).unwrap();
        nix::unistd::mkfifo(&part, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(put(root.path(), "f", piece(0, 0, b"")).is_ok());
        nix::unistd::mkfifo(&part, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(put(root.path(), "f", piece(3, 6, b"def")).is_err());
    }

    #[test]
    fn an_empty_file_is_a_file() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "empty", piece(0, 0, b"")).unwrap();
        assert_eq!(fs::read(root.path().join("empty")).unwrap(), b"");
    }

    #[test]
    fn links_on_the_way_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("way")).unwrap();
        symlink(outside.path().join("f"), root.path().join("f")).unwrap();
        assert!(put(root.path(), "way/f", piece(0, 1, b"x")).is_err());
        assert!(put(root.path(), "way", FileKind::Directory { mode: 0o755 }).is_err());
        put(root.path(), "f", piece(0, 1, b"x")).unwrap();
        assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
        assert!(
            fs::symlink_metadata(root.path().join("f"))
                .unwrap()
                .is_file()
        );
    }

    #[test]
    fn a_link_replaces_the_one_before() {
        let root = tempfile::tempdir().unwrap();
        for target in ["..one", "..two"] {
            put(
                root.path(),
                "..data",
                FileKind::Symlink {
                    target: target.into(),
                },
            )
            .unwrap();
        }
        assert_eq!(
            fs::read_link(root.path().join("..data")).unwrap(),
            Path::new("..two")
        );
    }

    #[test]
    fn a_new_version_replaces_the_one_before_whole() {
        let root = tempfile::tempdir().unwrap();
        let link = |target: &str| FileKind::Symlink {
            target: target.into(),
        };
        for (version, keys) in [("..1", &["user", "goes"][..]), ("..2", &["user", "comes"])] {
            for key in keys {
                let bytes = version.as_bytes();
                let kind = piece(0, bytes.len() as u64, bytes);
                put(root.path(), &format!("v/{version}/{key}"), kind).unwrap();
            }
            put(root.path(), "v/..data", link(version)).unwrap();
            for key in keys {
                put(
                    root.path(),
                    &format!("v/{key}"),
                    link(&format!("..data/{key}")),
                )
                .unwrap();
            }
        }
        let volume = root.path().join("v");
        assert_eq!(fs::read(volume.join("user")).unwrap(), b"..2");
        assert_eq!(fs::read(volume.join("comes")).unwrap(), b"..2");
        assert!(fs::symlink_metadata(volume.join("goes")).is_err());
        assert!(!volume.join("..1").exists());
    }

    #[test]
    fn a_directory_may_be_there_already() {
        let root = tempfile::tempdir().unwrap();
        for mode in [0o700, 0o755] {
            put(root.path(), "d", FileKind::Directory { mode }).unwrap();
            let found = fs::metadata(root.path().join("d"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(found & 0o777, mode);
        }
    }
}
