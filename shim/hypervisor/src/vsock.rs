//! The stream between host and guest.
//!
//! Two ways to the same thing. On nodes with vhost-vsock the kernel carries it: the VM gets an
//! address (CID) that is reserved by an open file, and we connect with `AF_VSOCK`. Elsewhere a
//! vhost-user device in a process of its own does, and we connect to its Unix socket with the
//! handshake `CONNECT <port>\n` → `OK <port>\n`, read byte by byte so that nothing of the stream
//! is swallowed.
//!
//! A request that is sent before the guest's driver is up may stay unanswered for ever, and one
//! sent before somebody listens is refused. So each attempt is a connection of its own, and one
//! that is merely slow does not hold up the next. An attempt is never given up before its
//! answer: vhost-device-vsock 0.3 panics, and serves no more, when it has an answer for a client
//! that is gone.

#![expect(unsafe_code, reason = "one ioctl without a safe form")]

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, SockFlag, SockType, VsockAddr},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinSet,
    time::Instant,
};

use crate::{socket::Held, user::User, vm::StartError};

/// The CID behind every hybrid socket; each device serves one VM.
pub(crate) const HYBRID_CID: u32 = 3;

/// The kernel's device.
const VHOST_VSOCK: &str = "/dev/vhost-vsock";
/// Longest path in a Unix socket address, without the final zero: unix(7), `sun_path`.
const MAX_SOCKET_PATH: usize = 107;
/// Longest answer to the hybrid handshake.
const MAX_ANSWER: usize = 64;
/// Attempts that may be unanswered at once.
const ATTEMPTS_MAX: usize = 64;
/// When a first silent attempt is joined by another; each waits longer than the one before.
const IMPATIENCE: Duration = Duration::from_millis(250);
/// The longest that a silent attempt waits for company.
const IMPATIENCE_MAX: Duration = Duration::from_secs(5);
/// Pause after a refused attempt.
const PAUSE: Duration = Duration::from_millis(20);
/// Addresses tried before giving up; they are random among four billion.
const CID_ATTEMPTS: usize = 16;

nix::ioctl_write_ptr!(
    /// `VHOST_VSOCK_SET_GUEST_CID` of linux/vhost.h.
    vhost_vsock_set_guest_cid,
    0xAF,
    0x60,
    u64
);

/// Where the guest's ports are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A Unix socket that speaks the hybrid handshake, and whose it must be.
    Hybrid(PathBuf, Option<User>),
    /// The guest's CID.
    Vsock(u32),
}

/// Opens the kernel's vhost-vsock device.
pub(crate) fn open_vhost() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(VHOST_VSOCK)
}

/// Reserves a random CID for as long as the file is open.
pub(crate) fn reserve_cid(vhost: &File) -> io::Result<u32> {
    let mut random = File::open("/dev/urandom")?;
    for _ in 0..CID_ATTEMPTS {
        let mut bytes = [0; 4];
        random.read_exact(&mut bytes)?;
        let cid = guest_cid(u32::from_ne_bytes(bytes));
        // SAFETY: the ioctl reads the eight bytes that the reference points to.
        match unsafe { vhost_vsock_set_guest_cid(vhost.as_raw_fd(), &u64::from(cid)) } {
            Ok(_) => return Ok(cid),
            Err(Errno::EADDRINUSE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EADDRINUSE.into())
}

/// Maps a random number to a CID that can be a guest's: 0 to 2 and the highest are taken, see
/// vsock(7).
fn guest_cid(random: u32) -> u32 {
    random.clamp(HYBRID_CID, libc::VMADDR_CID_ANY - 1)
}

/// Refuses socket paths that the kernel would not take.
pub(crate) fn check_socket_path(path: &Path) -> Result<(), StartError> {
    let length = path.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(StartError::SocketPath {
        path: path.to_owned(),
        length,
        limit: MAX_SOCKET_PATH,
    })
}

impl Address {
    /// Connects to a port, trying anew until somebody listens or the deadline has passed.
    ///
    /// # Errors
    /// What the last attempt met.
    pub(crate) async fn connect(&self, port: u32, deadline: Duration) -> io::Result<UnixStream> {
        let deadline = Instant::now() + deadline;
        let mut attempts = JoinSet::new();
        let connected = self.first_answer(port, deadline, &mut attempts).await;
        // The others run on until they are answered, or the device ends with the VM.
        attempts.detach_all();
        connected
    }

    async fn first_answer(
        &self,
        port: u32,
        deadline: Instant,
        attempts: &mut JoinSet<io::Result<UnixStream>>,
    ) -> io::Result<UnixStream> {
        let mut last_error = io::Error::from(io::ErrorKind::TimedOut);
        let mut impatience = IMPATIENCE;
        loop {
            if attempts.len() < ATTEMPTS_MAX {
                attempts.spawn(self.clone().attempt(port));
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline) => return Err(last_error),
                Some(ended) = attempts.join_next() => match ended.map_err(io::Error::other)? {
                    Ok(stream) => return Ok(stream),
                    Err(error) => {
                        last_error = error;
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                () = tokio::time::sleep(impatience) => {
                    impatience = (impatience * 2).min(IMPATIENCE_MAX);
                }
            }
        }
    }

    async fn attempt(self, port: u32) -> io::Result<UnixStream> {
        match self {
            Self::Hybrid(path, owner) => hybrid(&path, owner, port).await,
            Self::Vsock(cid) => vsock(cid, port).await,
        }
    }
}

async fn hybrid(path: &Path, owner: Option<User>, port: u32) -> io::Result<UnixStream> {
    let socket = Held::open(path, owner)?;
    let mut stream = UnixStream::connect(socket.path()).await?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    while answer.last() != Some(&b'\n') {
        if answer.len() >= MAX_ANSWER {
            return Err(refused());
        }
        answer.push(stream.read_u8().await?);
    }
    if answer.starts_with(b"OK") {
        Ok(stream)
    } else {
        Err(refused())
    }
}

fn refused() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionRefused)
}

async fn vsock(cid: u32, port: u32) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    match socket::connect(fd.as_raw_fd(), &VsockAddr::new(cid, port)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    // The type's name promises a Unix socket; reading, writing and polling know no difference.
    let stream = UnixStream::from_std(fd.into())?;
    stream.writable().await?;
    stream.take_error()?.map_or(Ok(stream), Err)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn bed() -> (tempfile::TempDir, UnixListener, Address) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        (directory, listener, Address::Hybrid(path, None))
    }

    async fn accept(listener: &UnixListener) -> UnixStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 13];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"CONNECT 1024\n");
        stream
    }

    #[tokio::test]
    async fn the_handshake_leaves_the_first_bytes_of_the_stream_alone() {
        let (_directory, listener, address) = bed();
        let server = async {
            let mut stream = accept(&listener).await;
            stream.write_all(b"OK 1073741824\nfirst").await.unwrap();
            stream
        };
        let (client, _server) = tokio::join!(address.connect(1024, LONG), server);
        let mut bytes = [0; 5];
        client.unwrap().read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"first");
    }

    #[tokio::test]
    async fn refused_silent_and_talkative_answers_are_tried_anew() {
        let (_directory, listener, address) = bed();
        let server = async {
            drop(accept(&listener).await);
            let silent = accept(&listener).await;
            let mut talkative = accept(&listener).await;
            talkative.write_all(&[b'x'; MAX_ANSWER + 1]).await.unwrap();
            let mut wrong = accept(&listener).await;
            wrong.write_all(b"NO\n").await.unwrap();
            accept(&listener).await.write_all(b"OK 1\n").await.unwrap();
            silent
        };
        let (client, _silent) = tokio::join!(address.connect(1024, LONG), server);
        client.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_when_nobody_answers() {
        let (_directory, _listener, address) = bed();
        let start = Instant::now();
        address
            .connect(1024, Duration::from_secs(5))
            .await
            .unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 5);
        let gone = Address::Hybrid("/nonexistent/vsock.sock".into(), None);
        let error = gone
            .connect(1024, Duration::from_secs(1))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn an_attempt_that_lost_the_race_stays_until_its_answer() {
        let (_directory, listener, address) = bed();
        let server = async {
            let slow = accept(&listener).await;
            accept(&listener).await.write_all(b"OK 1\n").await.unwrap();
            slow
        };
        let (client, mut slow) = tokio::join!(address.connect(1024, LONG), server);
        client.unwrap();
        slow.write_all(b"OK 2\n").await.unwrap();
        assert_eq!(slow.read(&mut [0]).await.unwrap(), 0);
    }

    #[test]
    fn only_free_addresses_are_given_to_guests() {
        for (random, cid) in [(0, 3), (2, 3), (3, 3), (77, 77), (u32::MAX, u32::MAX - 1)] {
            assert_eq!(guest_cid(random), cid);
        }
    }

    #[test]
    fn a_state_directory_of_a_real_sandbox_is_short_enough() {
        let directory = Path::new("/run/kata-cc").join("a".repeat(64));
        check_socket_path(&directory.join("vm/vsock/vhost.sock")).unwrap();
        let error = check_socket_path(&directory.join("b".repeat(64))).unwrap_err();
        assert!(error.to_string().contains("142 bytes"), "{error}");
    }
}
