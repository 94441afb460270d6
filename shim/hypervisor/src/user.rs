//! The unprivileged users that a VM's processes run as.
//!
//! What a process needs is handed over as open files. Devices that it opens itself
//! (`/dev/kvm`, `/dev/sev`) it may open as a member of the group that they belong to.

#![expect(
    unsafe_code,
    reason = "between fork and exec only plain system calls may be made"
)]

use std::{
    fs::Metadata,
    io,
    num::NonZeroU32,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

/// A user that is nobody else's while the VM lives; its group has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(NonZeroU32);

/// The users of a VM's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// The hypervisor's.
    pub hypervisor: User,
    /// That of the vsock device, where it is a process.
    pub vsock_device: User,
}

impl User {
    /// Any user but root.
    pub fn new(id: NonZeroU32) -> Self {
        Self(id)
    }

    /// Its number.
    pub fn id(self) -> u32 {
        self.0.get()
    }
}

/// Whom a process becomes before it runs its program.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    user: u32,
    groups: Vec<u32>,
}

impl Identity {
    pub(crate) fn of(user: User) -> Self {
        Self {
            user: user.id(),
            groups: Vec::new(),
        }
    }

    /// Lets it open a device, if that takes a group.
    ///
    /// # Errors
    /// One sentence, if no group would help.
    pub(crate) fn admit(&mut self, device: &Path) -> Result<(), String> {
        self.groups.extend(group_of(device)?);
        Ok(())
    }

    /// Becomes that user for good. Between fork and exec: makes system calls, and nothing else.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn assume(&self) -> io::Result<()> {
        let user = self.user;
        // The library's functions would have every thread of the process follow; after fork
        // there is one.
        // SAFETY: setgroups(2) reads as many numbers as it is told of a live list.
        checked(unsafe {
            libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr())
        })?;
        // SAFETY: setresgid(2) and setresuid(2) take three integers each.
        checked(unsafe { libc::syscall(libc::SYS_setresgid, user, user, user) })?;
        // SAFETY: as above.
        checked(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    }
}

fn checked(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether somebody who is not root can be let open a device.
///
/// # Errors
///
/// One sentence that says why not.
pub fn is_open_to_others(device: &Path) -> Result<(), String> {
    group_of(device).map(drop)
}

/// The group that lets its members open a device; `None` if everybody may.
fn group_of(device: &Path) -> Result<Option<u32>, String> {
    let found = device.metadata();
    let found = found.map_err(|error| format!("{} is not there ({error})", device.display()))?;
    group_for(&found).ok_or_else(|| {
        format!(
            "{} is for root alone: give it a group of its own that may read and write it",
            device.display()
        )
    })
}

/// The group that may use a device, `Some(None)` if everybody may, `None` if only root.
fn group_for(device: &Metadata) -> Option<Option<u32>> {
    let mode = device.permissions().mode();
    if mode & 0o006 == 0o006 {
        return Some(None);
    }
    // Root's group opens much more than one device.
    (mode & 0o060 == 0o060 && device.gid() != 0).then(|| Some(device.gid()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::chown};

    use super::*;

    #[test]
    fn a_device_is_opened_by_its_group_and_root_s_is_nobody_s() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("device");
        fs::write(&device, "").unwrap();
        let user = User::new(NonZeroU32::new(70_000).unwrap());
        for (mode, group, expected) in [
            (0o666, 0, Some(vec![])),
            (0o660, 107, Some(vec![107])),
            (0o640, 107, None),
            (0o660, 0, None),
            (0o600, 107, None),
        ] {
            fs::set_permissions(&device, fs::Permissions::from_mode(mode)).unwrap();
            chown(&device, Some(0), Some(group)).unwrap();
            let mut identity = Identity::of(user);
            let admitted = identity.admit(&device);
            assert_eq!(admitted.is_ok(), expected.is_some(), "{mode:o} {group}");
            assert_eq!(identity.groups, expected.unwrap_or_default());
        }
        let absent = Identity::of(user).admit(Path::new("/nonexistent"));
        assert!(absent.unwrap_err().contains("/nonexistent"));
    }
}
