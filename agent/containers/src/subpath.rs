//! What lies below a volume, where a container mounts only a part of it (`subPath`).
//!
//! A workload may have put links and anything else there. A link is followed as long as it
//! stays in the volume, as the kubelet follows it; what leads out of it, or into something
//! that is mounted in it, is refused.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2},
    io::Errno,
};

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens a directory or file below a volume. Directories that are missing come to exist as the
/// kubelet makes them: root's, with the permissions of the volume's own, and with its group
/// where it hands that on.
///
/// # Errors
///
/// When it leads out of the volume, or cannot be made.
pub(crate) fn open_part(volume: &OwnedFd, part: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::from(fstat(volume)?.st_mode & 0o7777);
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let mut current = openat(volume, ".", path | OFlags::DIRECTORY, Mode::empty())?;
    let mut reached = PathBuf::new();
    for name in part.components() {
        reached.push(name);
        current = match openat2(volume, &reached, path, Mode::empty(), INSIDE) {
            Ok(next) => next,
            Err(Errno::NOENT) => make_directory(&current, name.as_ref(), mode)?,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(current)
}

fn make_directory(parent: &OwnedFd, name: &Path, mode: Mode) -> io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from(0o700))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = INSIDE | ResolveFlags::NO_SYMLINKS;
    let made = openat2(parent, name, flags, Mode::empty(), resolve)?;
    fchmod(&made, mode)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;

    fn volume(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_part_that_is_missing_comes_to_exist_as_the_kubelet_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o2770, 0o1777] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let part = format!("pod{mode}/made");
            open_part(&volume(folder.path()), Path::new(&part)).unwrap();
            for path in [&part[..], part.split('/').next().unwrap()] {
                let found = fs::metadata(folder.path().join(path)).unwrap();
                assert_eq!(found.mode() & 0o7777, mode, "{path}");
            }
        }
    }

    #[test]
    fn what_is_there_is_opened_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("data/deep")).unwrap();
        fs::set_permissions(
            folder.path().join("data"),
            fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        fs::write(folder.path().join("data/deep/file"), "from-init").unwrap();
        symlink("data/deep", folder.path().join("inside")).unwrap();
        let volume = volume(folder.path());
        for part in ["data/deep/file", "inside/file"] {
            let file = open_part(&volume, Path::new(part)).unwrap();
            assert_eq!(fstat(file).unwrap().st_size, 9, "{part}");
        }
        let data = fs::metadata(folder.path().join("data")).unwrap();
        assert_eq!(data.mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_link_of_the_workload_leads_nowhere_outside() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("d")).unwrap();
        symlink(outside.path(), folder.path().join("absolute")).unwrap();
        symlink("..", folder.path().join("up")).unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let volume = volume(folder.path());
        let name = outside.path().file_name().unwrap().to_str().unwrap();
        for part in [
            "absolute",
            "absolute/d",
            "absolute/new",
            "up",
            &format!("up/{name}"),
            "dangling",
            "dangling/x",
            "file/x",
            "../x",
        ] {
            assert!(open_part(&volume, Path::new(part)).is_err(), "{part}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
