//! Setting up the vsock device of one VM.
//!
//! The vhost-user device is a process of its own for each VM, so that one guest's stream is not
//! in one address space with another's. It is ready when its socket accepts a connection, and
//! that very connection is handed to QEMU: nobody waits for a file to appear.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    argv, config,
    output::Capture,
    process::{Confinement, Process, Program, Stdout},
    record::Files,
    socket::Held,
    user::{Identity, User},
    vm::StartError,
    vsock::{self, Address, HYBRID_CID},
    world::World,
};

/// How long the device may take until it listens; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at the device's socket.
const PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for the last output of a process that has ended.
pub(crate) const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// The device prints next to nothing.
const LOG_LIMIT: usize = 64 * 1024;

/// A vsock device that is ready to be given to the hypervisor.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its process, unless the kernel does the work.
    pub(crate) process: Option<Process>,
    /// Where the guest is found.
    pub(crate) address: Address,
    /// What QEMU is told.
    pub(crate) argument: argv::Vsock,
    /// The open file behind [`Device::argument`].
    pub(crate) fd: OwnedFd,
}

/// Which device the node offers for the wish.
enum Choice {
    Vhost(File),
    VhostUser(PathBuf),
}

/// Sets up the wanted device.
pub(crate) async fn set_up(
    wanted: &config::Vsock,
    files: &Files,
    user: Option<User>,
) -> Result<Device, StartError> {
    match choose(wanted, vsock::open_vhost())? {
        Choice::Vhost(vhost) => kernel_device(vhost),
        Choice::VhostUser(binary) => start(&binary, files, user).await,
    }
}

fn choose(wanted: &config::Vsock, vhost: io::Result<File>) -> Result<Choice, StartError> {
    match (wanted, vhost) {
        (config::Vsock::VhostUser { device }, _) => Ok(Choice::VhostUser(device.clone())),
        (_, Ok(vhost)) => Ok(Choice::Vhost(vhost)),
        (
            config::Vsock::Auto {
                device: Some(device),
            },
            Err(_),
        ) => Ok(Choice::VhostUser(device.clone())),
        (_, Err(source)) => Err(StartError::NoVsock { source }),
    }
}

fn kernel_device(vhost: File) -> Result<Device, StartError> {
    let cid = vsock::reserve_cid(&vhost).map_err(|source| StartError::VsockAddress { source })?;
    let argument = argv::Vsock::Vhost {
        fd: vhost.as_raw_fd(),
        cid,
    };
    Ok(Device {
        process: None,
        address: Address::Vsock(cid),
        argument,
        fd: vhost.into(),
    })
}

async fn start(binary: &Path, files: &Files, user: Option<User>) -> Result<Device, StartError> {
    let (socket, ports) = (files.device_socket(), files.vsock_socket());
    vsock::check_socket_path(&socket)?;
    vsock::check_socket_path(&ports)?;
    let failed = |source| StartError::Spawn {
        program: binary.to_owned(),
        source,
    };
    let argument = |name: &str, path: &Path| {
        let mut argument = std::ffi::OsString::from(name);
        argument.push(path);
        argument
    };
    files.make_socket_directory(user).map_err(failed)?;
    let confinement = user.map(|user| {
        let mut world = World::of(binary, files.world_root());
        world.write(&files.socket_directory());
        Confinement {
            identity: Identity::of(user),
            world,
        }
    });
    let program = Program {
        path: binary.to_owned(),
        arguments: vec![
            format!("--guest-cid={HYBRID_CID}").into(),
            argument("--socket=", &socket),
            argument("--uds-path=", &ports),
        ],
        inherited: Vec::new(),
        stdout: Stdout::Discarded,
        confinement,
    };
    let (process, output) = Process::spawn(program).await.map_err(failed)?;
    let messages = Capture::start(output.stderr, files.device_log(), LOG_LIMIT).map_err(failed)?;
    let fd = wait_ready(&process, &messages, binary, (&socket, user)).await?;
    let argument = argv::Vsock::VhostUser { fd: fd.as_raw_fd() };
    Ok(Device {
        process: Some(process),
        address: Address::Hybrid(ports, user),
        argument,
        fd,
    })
}

async fn wait_ready(
    process: &Process,
    messages: &Capture,
    binary: &Path,
    (socket, owner): (&Path, Option<User>),
) -> Result<OwnedFd, StartError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = Held::open(socket, owner);
        if let Ok(stream) = held.and_then(|held| UnixStream::connect(held.path())) {
            return Ok(stream.into());
        }
        if process.is_gone() {
            messages.finished(LAST_OUTPUT).await;
            return Err(StartError::Exited {
                program: binary.to_owned(),
                status: process.exited().await,
                message: messages.excerpt(),
            });
        }
        if Instant::now() >= deadline {
            return Err(StartError::VsockDevice {
                program: binary.to_owned(),
                socket: socket.to_owned(),
                waited: PATIENCE,
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent() -> io::Result<File> {
        Err(io::Error::from(io::ErrorKind::NotFound))
    }

    fn present() -> io::Result<File> {
        File::open("/dev/null")
    }

    #[test]
    fn auto_prefers_the_kernel_and_falls_back_to_the_device() {
        let device = PathBuf::from("/device");
        let auto = config::Vsock::Auto {
            device: Some(device.clone()),
        };
        assert!(matches!(choose(&auto, present()), Ok(Choice::Vhost(_))));
        assert!(matches!(choose(&auto, absent()), Ok(Choice::VhostUser(found)) if found == device));
        let user = config::Vsock::VhostUser { device };
        assert!(matches!(choose(&user, present()), Ok(Choice::VhostUser(_))));
    }

    #[test]
    fn without_device_and_kernel_there_is_no_vsock() {
        for wanted in [config::Vsock::Vhost, config::Vsock::Auto { device: None }] {
            let refused = choose(&wanted, absent()).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains("vhost_vsock"), "{refused}");
            assert!(choose(&wanted, present()).is_ok());
        }
    }

    #[tokio::test]
    async fn a_device_that_ends_is_reported_with_its_words() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("device");
        std::fs::write(&script, "#!/bin/sh\necho no such luck >&2\nexit 7\n").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&script, executable).unwrap();
        let wanted = config::Vsock::VhostUser { device: script };
        let error = set_up(&wanted, &Files::new(directory.path()), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("(exit code 7): no such luck"), "{error}");
    }
}
