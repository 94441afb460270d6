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

use oci_spec::runtime::Process as SpecProcess;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use thiserror::Error;

/// Larger than any user database that a person wrote.
const DATABASE_BYTES_MAX: u64 = 4 << 20;

/// A container's root directory.
#[derive(Debug)]
pub(super) struct Inside(OwnedFd);

/// Why a user cannot be found.
#[derive(Debug, Error)]
pub enum UserError {
    /// The image has no such user.
    #[error("user {0:?} is not in the image's /etc/passwd")]
    Unknown(String),
    /// The image's database cannot be read.
    #[error("the image's {file} cannot be read")]
    Read {
        /// Its name.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A user by numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    /// User.
    pub uid: u32,
    /// First group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

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

    /// Looks a user up by name.
    ///
    /// # Errors
    ///
    /// When the image does not know the name.
    pub(super) fn user(&self, name: &str) -> Result<User, UserError> {
        let text = |file: &'static str| {
            let read = self.read(Path::new(file), DATABASE_BYTES_MAX);
            read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|source| UserError::Read { file, source })
        };
        let groups = text("/etc/group").unwrap_or_default();
        find(name, &text("/etc/passwd")?, &groups)
            .ok_or_else(|| UserError::Unknown(name.to_owned()))
    }
}

/// Puts the numbers of a user of the image into a process.
pub(crate) fn resolve_user(
    inside: &Inside,
    name: &str,
    process: &mut SpecProcess,
) -> Result<(), UserError> {
    let found = inside.user(name)?;
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    groups.extend(found.groups);
    let mut user = process.user().clone();
    user.set_uid(found.uid);
    user.set_gid(found.gid);
    user.set_additional_gids(Some(groups));
    process.set_user(user);
    Ok(())
}

fn find(name: &str, passwd: &str, group: &str) -> Option<User> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next()? == name).then_some(fields));
    let mut fields = fields?.skip(1);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let groups = group.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields
            .next()?
            .split(',')
            .any(|member| member == name)
            .then_some(gid)
    });
    Some(User {
        uid,
        gid,
        groups: groups.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbad:x\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\nbad\n";

    #[test]
    fn a_user_comes_with_all_groups() {
        let app = find("app", PASSWD, GROUP).unwrap();
        assert_eq!(
            app,
            User {
                uid: 1000,
                gid: 1001,
                groups: vec![10, 50]
            }
        );
        for name in ["bad", "nobody", "", "x"] {
            assert_eq!(find(name, PASSWD, GROUP), None, "{name}");
        }
    }

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
