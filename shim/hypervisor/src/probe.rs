//! What this node can do, asked before anything is started.
//!
//! Probing instead of assuming: `/dev/kvm` also opens on machines whose KVM cannot run an
//! ordinary kernel, so the CPU's flags count as well. Each refusal is one sentence for the
//! person who has to do something about it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::FileTypeExt as _},
    path::Path,
};

use crate::{
    config::{Accelerator, Disk, VmConfig},
    vm::StartError,
};

/// Longest kernel command line that x86 Linux keeps (`COMMAND_LINE_SIZE` less the final zero);
/// it would cut off the rest without a word.
const MAX_CMDLINE: usize = 2047;
/// `VIRTIO_BLK_ID_BYTES`: longer serial numbers are cut off.
const MAX_SERIAL: usize = 20;

/// The accelerator that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Kvm,
    Tcg,
}

/// Picks the accelerator for this node.
pub(crate) fn accelerator(wanted: Accelerator) -> Result<Chosen, StartError> {
    match wanted {
        Accelerator::Tcg => Ok(Chosen::Tcg),
        Accelerator::Kvm => kvm()
            .map(|()| Chosen::Kvm)
            .map_err(|reason| StartError::Kvm { reason }),
        Accelerator::Auto => match kvm() {
            Ok(()) => Ok(Chosen::Kvm),
            Err(reason) => {
                tracing::warn!(%reason, "kvm cannot be used, the guest is emulated and slow");
                Ok(Chosen::Tcg)
            }
        },
    }
}

/// Whether KVM can run a guest here.
///
/// # Errors
///
/// One sentence that says why not.
pub fn kvm() -> Result<(), String> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    kvm_usable(device.map(drop), &cpuinfo)
}

fn kvm_usable(device: io::Result<()>, cpuinfo: &str) -> Result<(), String> {
    device.map_err(|error| format!("/dev/kvm cannot be opened ({error})"))?;
    let virtualises = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_ascii_whitespace()
                .any(|flag| flag == "svm" || flag == "vmx")
        });
    if virtualises {
        return Ok(());
    }
    Err("the CPU flags in /proc/cpuinfo show neither svm nor vmx".to_owned())
}

/// Checks everything that can be checked before a process is started.
pub(crate) fn preflight(config: &VmConfig) -> Result<(), StartError> {
    readable("hypervisor", &config.path)?;
    readable("guest kernel", &config.kernel)?;
    readable("guest initrd", &config.initrd)?;
    if let Some(firmware) = &config.firmware {
        readable("firmware", firmware)?;
    }
    if let Some(source) = &config.entropy_source {
        readable("entropy source", source)?;
    }
    let refuse = |what, value: &str, reason| {
        Err(StartError::Value {
            what,
            value: value.to_owned(),
            reason,
        })
    };
    if config.cmdline.len() > MAX_CMDLINE {
        return refuse(
            "kernel command line",
            &config.cmdline,
            "the kernel keeps 2047 bytes of it",
        );
    }
    for disk in &config.disks {
        check_disk(disk)?;
    }
    if config.nics.iter().any(|nic| nic.tap.is_empty()) {
        return refuse("network interface", "", "it has no open tap file");
    }
    memory(u64::from(config.memory_mib.get()))
}

fn readable(what: &'static str, path: &Path) -> Result<(), StartError> {
    unicode(what, path)?;
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(found) if found.is_dir() => {
            let source = io::Error::from(io::ErrorKind::IsADirectory);
            Err(StartError::File {
                what,
                path: path.to_owned(),
                source,
            })
        }
        Ok(_) => Ok(()),
        Err(source) => Err(StartError::File {
            what,
            path: path.to_owned(),
            source,
        }),
    }
}

/// QEMU takes some paths as JSON, which holds nothing else.
fn unicode(what: &'static str, path: &Path) -> Result<(), StartError> {
    if path.to_str().is_some() {
        return Ok(());
    }
    let value = path.to_string_lossy().into_owned();
    Err(StartError::Value {
        what,
        value,
        reason: "the path is not UTF-8",
    })
}

fn check_disk(disk: &Disk) -> Result<(), StartError> {
    unicode("disk", &disk.path)?;
    open_disk(disk)?;
    let Some(serial) = &disk.serial else {
        return Ok(());
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if serial.is_empty() || serial.len() > MAX_SERIAL || !serial.bytes().all(plain) {
        let reason = "it must be 1 to 20 ASCII letters, digits, hyphens or underscores";
        return Err(StartError::Value {
            what: "disk serial",
            value: serial.clone(),
            reason,
        });
    }
    Ok(())
}

/// Opens a disk for the hypervisor; the second value is whether it is a block device.
pub(crate) fn open_disk(disk: &Disk) -> Result<(OwnedFd, bool), StartError> {
    let mut options = OpenOptions::new();
    options.read(true).write(!disk.read_only);
    let opened = options.open(&disk.path);
    let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (found, file) = opened.map_err(|source| StartError::File {
        what: "disk",
        path: disk.path.clone(),
        source,
    })?;
    Ok((file.into(), found.file_type().is_block_device()))
}

/// Opens what hands packets to the kernel, where the node has it.
pub(crate) fn open_vhost_net() -> Option<OwnedFd> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).open("/dev/vhost-net");
    opened.ok().map(OwnedFd::from)
}

fn memory(needed_mib: u64) -> Result<(), StartError> {
    match available_mib() {
        Some(available_mib) if available_mib < needed_mib => Err(StartError::Memory {
            needed_mib,
            available_mib,
        }),
        _ => Ok(()),
    }
}

/// Memory that new programs can have without swapping, if the node tells.
pub(crate) fn available_mib() -> Option<u64> {
    parse_available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, path::PathBuf};

    use super::*;

    #[test]
    fn kvm_needs_the_device_and_the_cpu_flag() {
        let amd = "processor : 0\nflags\t\t: fpu vme svm sse\n";
        let intel = "flags\t\t: fpu vmx\nvmx flags\t: vnmi\n";
        // "svm_lock" and "vmx flags" are other words.
        let neither = "flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n";
        assert_eq!(kvm_usable(Ok(()), amd), Ok(()));
        assert_eq!(kvm_usable(Ok(()), intel), Ok(()));
        assert!(
            kvm_usable(Ok(()), neither)
                .unwrap_err()
                .contains("neither svm nor vmx")
        );
        let absent = Err(io::Error::from(io::ErrorKind::NotFound));
        assert!(kvm_usable(absent, amd).unwrap_err().contains("/dev/kvm"));
    }

    #[test]
    fn meminfo_is_read_in_mebibytes() {
        let meminfo = "MemTotal:       24689132 kB\nMemAvailable:   20480000 kB\n";
        assert_eq!(parse_available(meminfo), Some(20_000));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
        assert_eq!(parse_available("MemAvailable: lots kB\n"), None);
    }

    fn config(directory: &Path) -> VmConfig {
        let file = directory.join("file");
        std::fs::write(&file, "x").unwrap();
        VmConfig {
            path: file.clone(),
            kernel: file.clone(),
            initrd: file,
            ..VmConfig::new("id", directory.to_owned())
        }
    }

    #[track_caller]
    fn refused(config: &VmConfig, expected: &str) {
        let error = preflight(config).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn preflight_names_the_file_that_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let good = || config(directory.path());
        preflight(&good()).unwrap();
        let gone = || PathBuf::from("/nonexistent/x");
        let cases = [
            (
                VmConfig {
                    kernel: gone(),
                    ..good()
                },
                "cannot open guest kernel /nonexistent/x",
            ),
            (
                VmConfig {
                    initrd: directory.path().into(),
                    ..good()
                },
                "cannot open guest initrd",
            ),
            (
                VmConfig {
                    path: gone(),
                    ..good()
                },
                "cannot open hypervisor /nonexistent/x",
            ),
            (
                VmConfig {
                    firmware: Some(gone()),
                    ..good()
                },
                "cannot open firmware",
            ),
            (
                VmConfig {
                    entropy_source: Some(gone()),
                    ..good()
                },
                "cannot open entropy source",
            ),
        ];
        for (config, expected) in cases {
            refused(&config, expected);
        }
    }

    #[test]
    fn preflight_refuses_values_that_would_be_cut_off_or_misread() {
        let directory = tempfile::tempdir().unwrap();
        let good = || config(directory.path());
        let file = directory.path().join("file");
        let disk = |path: &Path, serial: &str| VmConfig {
            disks: vec![Disk {
                path: path.to_owned(),
                read_only: true,
                serial: Some(serial.to_owned()),
            }],
            ..good()
        };
        preflight(&disk(&file, "initdata")).unwrap();
        refused(
            &disk(Path::new("/nonexistent/x"), "a"),
            "cannot open disk /nonexistent/x",
        );
        for serial in ["", "a,b", "aaaaaaaaaaaaaaaaaaaaa"] {
            refused(&disk(&file, serial), "disk serial");
        }
        refused(
            &VmConfig {
                cmdline: "x".repeat(2048),
                ..good()
            },
            "kernel command line",
        );
        let nic = crate::Nic {
            mac: [2; 6],
            mtu: 1500,
            tap: Vec::new(),
        };
        refused(
            &VmConfig {
                nics: vec![nic],
                ..good()
            },
            "network interface",
        );
    }

    #[test]
    fn preflight_refuses_more_memory_than_the_node_has() {
        let directory = tempfile::tempdir().unwrap();
        let config = VmConfig {
            memory_mib: NonZeroU32::MAX,
            ..config(directory.path())
        };
        refused(
            &config,
            "not enough free memory: the VM needs 4294967295 MiB and the node has",
        );
    }
}
