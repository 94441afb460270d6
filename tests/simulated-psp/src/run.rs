//! Becomes QEMU, with the secure processor beside it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::{
    launch::take_apart,
    processor::{Files, Guest},
    serve::PORT,
};

/// What the shim cannot say, because it would not say it to QEMU either.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the authority.
    pub authority: PathBuf,
    /// The QEMU to become.
    pub qemu: PathBuf,
    /// Arguments of `simulated-psp serve` that name the processor's model.
    pub model: Vec<String>,
}

/// Measures the launch that the arguments describe, starts the processor and becomes QEMU.
/// Returns only when that fails.
pub fn become_qemu(
    settings: &Settings,
    arguments: &[OsString],
) -> Result<std::convert::Infallible> {
    let taken = take_apart(arguments)?;
    let launch = &taken.launch;
    let files = Files {
        kernel: read("kernel", &launch.kernel)?,
        initrd: read("initrd", &launch.initrd)?,
        firmware: read("firmware", &launch.firmware)?,
    };
    let guest = Guest::launch(launch, &files)?;
    eprintln!("simulated-psp: launch digest {}", guest.measurement());
    let kernel = sealed("kernel", &files.kernel)?;
    let initrd = sealed("initrd", &files.initrd)?;
    let (ours, theirs) = UnixStream::pair().context("making the port")?;
    start_processor(settings, &guest, ours)?;

    let port = inheritable(theirs)?;
    let error = Command::new(&settings.qemu)
        .args(&taken.remaining)
        .arg("-kernel")
        .arg(path(&kernel))
        .arg("-initrd")
        .arg(path(&initrd))
        .args(["-device", "virtio-serial-pci,id=psp"])
        .args(["-chardev", &format!("socket,id=psp-port,fd={port}")])
        .args([
            "-device",
            &format!("virtserialport,chardev=psp-port,name={PORT}"),
        ])
        .exec();
    Err(error).with_context(|| format!("becoming {}", settings.qemu.display()))
}

/// A child of this process and so of QEMU. It gets its end of the port as standard input; messages
/// go where QEMU's go.
fn start_processor(settings: &Settings, guest: &Guest, port: UnixStream) -> Result<()> {
    let program = std::env::current_exe().context("finding the running program")?;
    Command::new(program)
        .arg("serve")
        .arg("--authority")
        .arg(&settings.authority)
        .args(&settings.model)
        .args(["--parent", &std::process::id().to_string()])
        .args(["--guest", &serde_json::to_string(guest)?])
        .stdin(Stdio::from(OwnedFd::from(port)))
        .stdout(Stdio::null())
        .spawn()
        .context("starting the processor")?;
    Ok(())
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading the {what} {}", path.display()))
}

/// The measured bytes in memory that nobody can change any more; QEMU inherits it.
fn sealed(name: &str, bytes: &[u8]) -> Result<File> {
    let memory = rustix::fs::memfd_create(name, MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(bytes)
        .and_then(|()| file.rewind())
        .with_context(|| format!("copying the {name}"))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The number of a socket that QEMU inherits.
fn inheritable(socket: UnixStream) -> Result<i32> {
    use std::os::fd::IntoRawFd as _;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty())?;
    Ok(socket.into_raw_fd())
}
