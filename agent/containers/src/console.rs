//! Receives the master side of a terminal that the container library made inside
//! the container.

use std::{
    fs, io,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use agent_requests::paths::CONSOLE_ROOT;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// A socket that waits for one terminal.
#[derive(Debug)]
pub(super) struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    pub(super) fn listen(serial: u64) -> io::Result<Self> {
        fs::create_dir_all(CONSOLE_ROOT)?;
        let path = Path::new(CONSOLE_ROOT).join(serial.to_string());
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal; the helper has sent it before it says that it is done,
    /// so there is nothing to wait for.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        receive(&stream)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags,
    )?;
    let fd = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| io::Error::other("no terminal was sent"))
}
