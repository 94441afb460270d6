//! The file systems of the guest.

use std::{ffi::CStr, fs, io, path::Path};

use rustix::mount::MountFlags;

use super::error::BootError;

/// Memory that images and volumes may take in all. The rest is the processes'.
const RUN_OPTIONS: &CStr = c"mode=0755,size=80%";
const PLAIN: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

fn mount(
    kind: &str,
    target: &Path,
    flags: MountFlags,
    options: Option<&CStr>,
) -> Result<(), BootError> {
    let failed = |source: io::Error| BootError::Mount {
        target: target.to_owned(),
        source,
    };
    fs::create_dir_all(target).map_err(failed)?;
    rustix::mount::mount(kind, target, kind, flags, options).map_err(|error| failed(error.into()))
}

/// What the kernel tells of itself, in the initial root.
pub(super) fn kernel() -> Result<(), BootError> {
    mount("proc", Path::new("/proc"), PLAIN, None)?;
    mount("sysfs", Path::new("/sys"), PLAIN, None)?;
    match mount("devtmpfs", Path::new("/dev"), MountFlags::NOSUID, None) {
        // The kernel may have mounted it by itself.
        Err(BootError::Mount { source, .. }) if source.raw_os_error() == Some(BUSY) => Ok(()),
        result => result,
    }
}

const BUSY: i32 = 16;

/// The rest, below the new root, to which the kernel's were moved.
pub(super) fn rest(root: &Path) -> Result<(), BootError> {
    let dev = MountFlags::NOSUID | MountFlags::NOEXEC;
    let run = MountFlags::NOSUID | MountFlags::NODEV;
    mount(
        "devpts",
        &root.join("dev/pts"),
        dev,
        Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"),
    )?;
    mount("tmpfs", &root.join("dev/shm"), PLAIN, Some(c"mode=1777"))?;
    mount("tmpfs", &root.join("run"), run, Some(RUN_OPTIONS))?;
    mount("tmpfs", &root.join("tmp"), run, Some(c"mode=1777"))?;
    mount(
        "cgroup2",
        &root.join("sys/fs/cgroup"),
        PLAIN,
        Some(c"nsdelegate"),
    )
}

/// Offers every controller to the containers. One the kernel lacks only means that
/// its limits cannot be set, which is reported when a container asks for them.
pub(super) fn delegate_cgroups() {
    let root = Path::new(agent_requests::paths::CGROUP_ROOT);
    let parent = root.join(agent_requests::paths::CGROUP_PARENT);
    let _ = fs::create_dir_all(&parent);
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    for directory in [root, &parent] {
        for controller in controllers.split_whitespace() {
            let _ = fs::write(
                directory.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
}
