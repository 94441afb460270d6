//! Connects to sockets that an unprivileged process made.
//!
//! The process may have been taken over, and may have put a link in its socket's place, so that
//! we, who are root, would connect somewhere for it. So the name is opened without following
//! links, must be a socket of that process's user, and what was opened is connected to.

use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use crate::user::User;

/// A socket that is held, so that its name counts no more.
#[derive(Debug)]
pub(crate) struct Held(File);

impl Held {
    /// Opens a socket's name; of `owner`, if it must be somebody's.
    ///
    /// # Errors
    /// Also when it is no socket, or another's.
    pub(crate) fn open(path: &Path, owner: Option<User>) -> io::Result<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(AT_FDCWD, path, how)?);
        let found = file.metadata()?;
        let is_owned = owner.is_none_or(|owner| owner.id() == found.uid());
        if !found.file_type().is_socket() || !is_owned {
            return Err(io::Error::other(
                "it is no socket of the process that makes it",
            ));
        }
        Ok(Self(file))
    }

    /// A name of the very socket, as long as this value lives.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU32,
        os::unix::{
            fs::{chown, symlink},
            net::{UnixListener, UnixStream},
        },
    };

    use super::*;

    #[test]
    fn a_link_a_file_and_another_s_socket_are_not_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let _listener = UnixListener::bind(path("socket")).unwrap();
        symlink("socket", path("link")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        let held = Held::open(&path("socket"), None).unwrap();
        // The name may go; what is held stays.
        std::fs::rename(path("socket"), path("moved")).unwrap();
        UnixStream::connect(held.path()).unwrap();
        for refused in ["link", "file", "absent"] {
            assert!(Held::open(&path(refused), None).is_err(), "{refused}");
        }
        let user = User::new(NonZeroU32::new(70_000).unwrap());
        assert!(Held::open(&path("moved"), Some(user)).is_err());
        if nix::unistd::geteuid().is_root() {
            chown(path("moved"), Some(user.id()), None).unwrap();
            assert!(Held::open(&path("moved"), Some(user)).is_ok());
        }
    }
}
