//! The agent's own root: in memory, read-only, and one that `pivot_root` can leave.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    mount::{MountFlags, MountPropagationFlags},
};

use super::error::BootError;

pub(super) const NEW_ROOT: &str = "/new-root";
/// The agent's program, as seen from the new root.
pub(super) const PROGRAM: &str = "/kata-agent";
/// The same in the initial root, where it stays: to copy it takes as long as all else here.
const INITIAL_PROGRAM: &str = "/init";
/// Moved over as they are.
const KERNEL_MOUNTS: [&str; 3] = ["proc", "sys", "dev"];
const DIRECTORIES: [&str; 8] = ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var"];

/// Makes the new root with all that is needed of the initial one.
pub(super) fn build() -> Result<(), BootError> {
    let root = Path::new(NEW_ROOT);
    let mounted = fs::create_dir_all(root).and_then(|()| {
        let options = c"mode=0755";
        Ok(rustix::mount::mount(
            "tmpfs",
            root,
            "tmpfs",
            MountFlags::NODEV,
            options,
        )?)
    });
    mounted.map_err(|source| BootError::Mount {
        target: root.to_owned(),
        source,
    })?;
    for name in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir(&path).map_err(|source| BootError::File { path, source })?;
    }
    let program = root.join(PROGRAM.trim_start_matches('/'));
    let made = |path: &Path, result: io::Result<()>| {
        result.map_err(|source| BootError::File {
            path: path.to_owned(),
            source,
        })
    };
    made(&program, fs::write(&program, []))?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    let bound = rustix::mount::mount_bind(INITIAL_PROGRAM, &program)
        .and_then(|()| rustix::mount::mount_remount(&program, flags | MountFlags::BIND, c""));
    bound.map_err(|error| BootError::Mount {
        target: program.clone(),
        source: error.into(),
    })?;
    made(
        &root.join("etc"),
        copy_tree(Path::new("/etc"), &root.join("etc")),
    )?;
    for (link, target) in [
        ("var/run", "/run"),
        ("etc/resolv.conf", agent_requests::paths::RESOLV_CONF),
        ("etc/mtab", "/proc/self/mounts"),
    ] {
        let path = root.join(link);
        let _ = fs::remove_file(&path);
        made(&path, symlink(target, &path))?;
    }
    for name in KERNEL_MOUNTS {
        let target = root.join(name);
        rustix::mount::mount_move(Path::new("/").join(name), &target).map_err(|error| {
            BootError::Mount {
                target,
                source: error.into(),
            }
        })?;
    }
    Ok(())
}

/// Regular files and directories; the guest image has nothing else there.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Gives the initial root's memory back and makes the new one the only one.
pub(super) fn enter() -> Result<(), BootError> {
    let entered = || -> io::Result<()> {
        empty(Path::new("/"));
        rustix::process::chdir(NEW_ROOT)?;
        rustix::mount::mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        rustix::process::chdir("/")?;
        rustix::mount::mount_remount("/", MountFlags::RDONLY | MountFlags::NODEV, c"")?;
        // Containers change the propagation of their own copies only.
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        Ok(rustix::mount::mount_change("/", private)?)
    };
    entered().map_err(BootError::Enter)
}

/// Removes what is on the initial root's own file system but for the agent itself; a file
/// that cannot be removed only keeps its memory.
fn empty(directory: &Path) {
    let Ok(device) = device(directory) else {
        return;
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if path == Path::new(INITIAL_PROGRAM) {
            continue;
        }
        if !kind.is_dir() {
            let _ = fs::remove_file(&path);
        } else if self::device(&path).is_ok_and(|other| other == device) {
            empty(&path);
            let _ = fs::remove_dir(&path);
        }
    }
}

fn device(path: &Path) -> rustix::io::Result<u64> {
    let stat = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(stat.st_dev)
}
