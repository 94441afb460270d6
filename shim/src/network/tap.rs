//! Opens tap devices.
//!
//! The one place that speaks to `/dev/net/tun`. The tap appears in the network
//! namespace of the calling thread and lives as long as the returned file.

#![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

/// `struct ifreq` as TUNSETIFF reads it (linux/if.h): a name, flags, padding.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    InterfaceRequest
);

/// Makes a tap that carries a virtio header with each frame.
///
/// # Errors
///
/// The kernel's error if `/dev/net/tun` is missing, or if the name is too long or taken.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let mut request = InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        flags: 0,
        padding: [0; 22],
    };
    // The last byte stays zero.
    let room = request
        .name
        .get_mut(..libc::IFNAMSIZ - 1)
        .unwrap_or_default();
    room.get_mut(..name.len())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?
        .copy_from_slice(name.as_bytes());
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;

    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: the file is open, and `request` is a live value of the layout that
    // TUNSETIFF reads and writes; the kernel keeps no pointer to it.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(file.into())
}
