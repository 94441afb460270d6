//! For tests: a thread whose mounts nobody else sees, with the guest's places in it.

use std::{fs, io, panic::resume_unwind, thread};

use agent_requests::paths::{SANDBOX_ROOT, SHARED_ROOT};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Runs a test there, or says that it is not run.
pub(crate) fn with_private_mounts(test: impl FnOnce() + Send + 'static) {
    let work = thread::spawn(move || prepare().map(|()| test()));
    match work.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: mounts need root");
        }
        Ok(Err(error)) => panic!("{error}"),
        Err(failed) => resume_unwind(failed),
    }
}

fn prepare() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
    fs::create_dir_all(SHARED_ROOT)?;
    fs::create_dir_all(SANDBOX_ROOT)
}
