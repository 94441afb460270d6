//! What a node has, read once.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use shim_hypervisor::node;

/// How long a program may take to print its version or its default configuration.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
/// What a pipe holds: a program that prints more does not end before it is read.
const MAX_ANSWER_LEN: u64 = 64 << 10;

/// Where the node's parts are installed; as in `configuration.toml`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Places {
    /// QEMU
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/bin/qemu-system-x86_64"
    )]
    qemu: PathBuf,
    /// Firmware of measured guests
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/share/ovmf/OVMF.amdsev.fd"
    )]
    firmware: PathBuf,
    /// Guest image
    #[arg(long, value_name = "DIR", default_value = "/opt/kata-cc/guest/default")]
    guest_image: PathBuf,
    /// Device for nodes without /dev/vhost-vsock
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/opt/kata-cc/bin/vhost-device-vsock"
    )]
    vsock_device: PathBuf,
}

/// A part that is there, or why it is not.
pub(crate) type Part = Result<String, String>;

/// Everything that is decided upon.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// `x86_64` or another.
    pub(crate) architecture: String,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Whether the processor has SEV-SNP.
    pub(crate) snp_in_processor: bool,
    /// Whether the kernel lets guests use it.
    pub(crate) snp_enabled: bool,
    /// Whether the kernel runs TDX guests.
    pub(crate) tdx_enabled: bool,
    /// `/dev/sev`.
    pub(crate) sev_device: Part,
    /// Whether KVM can run guests.
    pub(crate) kvm: Part,
    /// Whether QEMU's user may open the devices that it opens itself.
    pub(crate) open_to_qemu: Part,
    /// What QEMU says of its version.
    pub(crate) qemu: Part,
    /// The firmware file.
    pub(crate) firmware: Part,
    /// The guest image's manifest.
    pub(crate) guest_image: Part,
    /// `/dev/vhost-vsock`.
    pub(crate) vhost_vsock: Part,
    /// The stand-in for it.
    pub(crate) vsock_device: Part,
    /// `/dev/vhost-net`.
    pub(crate) vhost_net: Part,
}

impl Facts {
    /// Looks at this node.
    pub(crate) fn probe(places: &Places) -> Self {
        let tdx = fs::read_to_string("/sys/module/kvm_intel/parameters/tdx");
        Self {
            architecture: std::env::consts::ARCH.to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|error| error.to_string(), |text| text.trim_end().to_owned()),
            snp_in_processor: node::is_in_processor(),
            snp_enabled: node::snp_is_enabled(),
            tdx_enabled: tdx.is_ok_and(|value| matches!(value.trim(), "Y" | "1")),
            sev_device: part("/dev/sev", node::sev_device()),
            kvm: node::kvm().map(|()| "usable".to_owned()),
            open_to_qemu: open_to_qemu(),
            qemu: version(&places.qemu),
            firmware: file(&places.firmware),
            guest_image: file(&places.guest_image.join("manifest.json")),
            vhost_vsock: device("/dev/vhost-vsock"),
            vsock_device: file(&places.vsock_device),
            vhost_net: device("/dev/vhost-net"),
        }
    }
}

/// QEMU runs as an unprivileged user; a device that is not there is another finding.
fn open_to_qemu() -> Part {
    let mut devices = Vec::new();
    if node::kvm().is_ok() {
        devices.push("/dev/kvm");
    }
    if node::snp_is_enabled() {
        devices.push("/dev/sev");
    }
    for device in &devices {
        node::is_open_to_others(Path::new(device))?;
    }
    Ok(if devices.is_empty() {
        "none needed".to_owned()
    } else {
        devices.join(", ")
    })
}

fn device(path: &str) -> Part {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    part(path, opened.map(drop))
}

fn file(path: &Path) -> Part {
    part(&path.display().to_string(), File::open(path).map(drop))
}

fn part(name: &str, opened: io::Result<()>) -> Part {
    match opened {
        Ok(()) => Ok(name.to_owned()),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The first line of what a program says with `--version`.
fn version(program: &Path) -> Part {
    let text = said(program, &["--version"])?;
    let line = text.lines().next().unwrap_or_default();
    Ok(line.to_owned())
}

/// What a program prints, or why it does not.
pub(crate) fn said(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let failed = |error: io::Error| format!("{}: {error}", program.display());
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let end = Instant::now() + ANSWER_MAX;
    while child.try_wait().map_err(failed)?.is_none() {
        if Instant::now() > end {
            // It is our own child, so both find it.
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(format!("{} does not answer", program.display()));
        }
        thread::sleep(PAUSE);
    }
    let mut text = String::new();
    if let Some(output) = child.stdout.take() {
        let mut bounded = output.take(MAX_ANSWER_LEN);
        bounded.read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_first_line_is_its_version_and_a_missing_one_is_named() {
        assert!(version(Path::new("/bin/bash")).unwrap().contains("version"));
        let missing = version(Path::new("/nonexistent")).unwrap_err();
        assert!(missing.starts_with("/nonexistent: "), "{missing}");
    }
}
