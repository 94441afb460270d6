//! Removing a directory with everything in it.

use std::{
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat},
    io::Errno,
};

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes a directory and everything in it; one that is not there is no error. No link is
/// followed, and nothing is removed that is mounted in it.
///
/// # Errors
///
/// When something in it cannot be removed, or something is mounted there.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let removed = openat(CWD, parent, OPEN, Mode::empty())
        .and_then(|parent| remove_tree(&parent, name.as_bytes()));
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same, beneath a directory that is open. Without recursion: depth is the archive's choice.
///
/// # Errors
///
/// When it is no directory, or something in it cannot be removed.
pub fn remove_tree(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    let mut stack: Vec<(OwnedFd, Vec<u8>)> = vec![(open_child(at, name)?, name.to_vec())];
    while let Some((fd, _)) = stack.last() {
        let mut child = None;
        let mut entries = Dir::read_from(fd)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            match unlinkat(fd, name, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ISDIR) => match unlinkat(fd, name, AtFlags::REMOVEDIR) {
                    Ok(()) => {}
                    Err(Errno::NOTEMPTY) => {
                        child = Some((open_child(fd, name)?, name.to_vec()));
                        break;
                    }
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        if let Some(child) = child {
            stack.push(child);
            continue;
        }
        let Some((_, name)) = stack.pop() else { break };
        let above = stack.last().map_or(at, |(fd, _)| fd);
        unlinkat(above, name.as_slice(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn open_child(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(at, name, OPEN, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn removal_takes_all_that_is_inside_and_follows_no_link() {
        let around = tempfile::tempdir().unwrap();
        let inside = around.path().join("inside");
        fs::create_dir_all(inside.join("a/b/c")).unwrap();
        fs::write(inside.join("a/file"), "x").unwrap();
        let outside = around.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, inside.join("a/link")).unwrap();
        remove_directory(&inside).unwrap();
        assert!(!inside.exists());
        assert!(outside.join("kept").exists());
        remove_directory(&inside).unwrap();
        symlink(&outside, &inside).unwrap();
        assert!(remove_directory(&inside).is_err());
        assert!(outside.join("kept").exists());
    }
}
