//! The calls that no safe library has: device mapper's, and those that give a
//! directory a limit. Layouts are the kernel's, written as bytes; sizes are asserted
//! where structures are the C library's.

#![expect(
    unsafe_code,
    reason = "ioctl and quotactl_fd take pointers whose meaning depends on a number"
)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::{errno::Errno, libc};

/// Bytes of `struct dm_ioctl` (`linux/dm-ioctl.h`).
pub(super) const DM_HEADER_BYTES: usize = 312;
/// Where it says how long the whole message is.
const DM_SIZE_AT: usize = 12;
/// `DM_IOCTL`, the type in each command's number.
const DM_TYPE: u32 = 0xfd;

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` (`linux/fs.h`): `_IOR('X', 31, …)` and
/// `_IOW('X', 32, …)` of a `struct fsxattr`.
const GET_ATTRIBUTES: u32 = 0x801c_581f;
const SET_ATTRIBUTES: u32 = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made in the directory belongs to its project.
const INHERIT: u32 = 0x200;

/// `struct fsxattr` (`linux/fs.h`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}
const _: () = assert!(size_of::<Attributes>() == 28);

/// `QCMD(Q_SETQUOTA, PRJQUOTA)` (`linux/quota.h`).
const SET_PROJECT_QUOTA: u32 = (0x80_0008 << 8) | 2;
/// `QIF_BLIMITS`: only the limits of space are set.
const SPACE_LIMITS: u32 = 1;
/// `struct if_dqblk` counts space in these.
const QUOTA_UNIT_BYTES: u64 = 1024;
const _: () = assert!(size_of::<libc::dqblk>() == 72);

/// Sends one message to device mapper and takes its answer in the same place.
pub(super) fn device_mapper(control: &File, command: u8, message: &mut [u8]) -> io::Result<()> {
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let bytes = u32::try_from(message.len()).map_err(|_| too_long())?;
    let size = message.get_mut(DM_SIZE_AT..DM_SIZE_AT + 4);
    size.ok_or_else(too_long)?
        .copy_from_slice(&bytes.to_le_bytes());
    if message.len() < DM_HEADER_BYTES {
        return Err(too_long());
    }
    // _IOWR(DM_IOCTL, command, struct dm_ioctl)
    let request = (3 << 30) | (0x138 << 16) | (DM_TYPE << 8) | u32::from(command);
    const { assert!(DM_HEADER_BYTES == 0x138) };
    // SAFETY: device mapper reads and writes as many bytes as the message itself
    // says, which was just set to its length, and at least a header's.
    let result = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            libc::Ioctl::from(request),
            message.as_mut_ptr(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Puts an empty directory, and all that is made in it, into a project.
pub(super) fn set_project(directory: impl AsFd, project: u32) -> io::Result<()> {
    let mut attributes = Attributes::default();
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: both calls take a pointer to one `struct fsxattr`, which this is.
    Errno::result(unsafe {
        libc::ioctl(fd, libc::Ioctl::from(GET_ATTRIBUTES), &raw mut attributes)
    })?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: as above.
    Errno::result(unsafe {
        libc::ioctl(fd, libc::Ioctl::from(SET_ATTRIBUTES), &raw const attributes)
    })?;
    Ok(())
}

/// Limits what a project may take on the file system of this directory.
pub(super) fn set_limit(directory: impl AsFd, project: u32, bytes: u64) -> io::Result<()> {
    let units = bytes / QUOTA_UNIT_BYTES;
    let quota = libc::dqblk {
        dqb_bhardlimit: units,
        dqb_bsoftlimit: units,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: SPACE_LIMITS,
    };
    // SAFETY: for this command the kernel reads one `struct if_dqblk`, which this is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            directory.as_fd().as_raw_fd(),
            SET_PROJECT_QUOTA,
            project,
            &raw const quota,
        )
    };
    Errno::result(result)?;
    Ok(())
}
