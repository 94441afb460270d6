//! Which devices the host gave the guest, before a driver takes any of them.
//!
//! The host chooses the devices and nothing measures them; each is a driver more that reads
//! what the host writes. So a guest with another kind of device than a pod needs, or with
//! more of a kind, ends by name. What they are is told by their numbers (PCI, and virtio 1.3
//! section 4.1.2), not by a name that the host made up.

use std::{fs, io, path::Path};

use super::error::BootError;

const FUNCTIONS: &str = "/sys/bus/pci/devices";

/// A function on the PCI bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Function {
    vendor: u32,
    device: u32,
    /// Base class, subclass and interface.
    class: u32,
}

/// What a pod's VM has, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Joins buses; has no driver of its own that reads data.
    Bridge,
    /// Part of the machine that QEMU calls q35; the guest has no driver for it.
    OfMachine,
    Network,
    Disk,
    Entropy,
    Vsock,
    /// The line to the processor that tests simulate.
    #[cfg(feature = "simulated-tee")]
    Simulated,
}

impl Kind {
    fn of(function: Function) -> Option<Self> {
        const VIRTIO: u32 = 0x1af4;
        match (function.vendor, function.device) {
            (VIRTIO, 0x1000 | 0x1041) => Some(Self::Network),
            (VIRTIO, 0x1001 | 0x1042) => Some(Self::Disk),
            (VIRTIO, 0x1005 | 0x1044) => Some(Self::Entropy),
            (VIRTIO, 0x1012 | 0x1053) => Some(Self::Vsock),
            #[cfg(feature = "simulated-tee")]
            (VIRTIO, 0x1003 | 0x1043) => Some(Self::Simulated),
            // The disk controller and the system management bus of Intel's ICH9.
            (0x8086, 0x2922 | 0x2930) => Some(Self::OfMachine),
            _ if function.class >> 16 == 0x06 => Some(Self::Bridge),
            _ => None,
        }
    }

    /// How many a pod has at most.
    fn most(self) -> usize {
        match self {
            Self::Bridge | Self::OfMachine => 64,
            Self::Network => 8,
            // Initdata and the scratch disk.
            Self::Disk => 2,
            Self::Entropy | Self::Vsock => 1,
            #[cfg(feature = "simulated-tee")]
            Self::Simulated => 1,
        }
    }
}

/// Refuses a guest with a device that no pod has.
///
/// # Errors
///
/// [`BootError::Device`] names the first.
pub(super) fn check() -> Result<(), BootError> {
    let functions = read(Path::new(FUNCTIONS)).map_err(BootError::Devices)?;
    match unexpected(functions) {
        Some(Function { vendor, device, .. }) => Err(BootError::Device { vendor, device }),
        None => Ok(()),
    }
}

fn read(root: &Path) -> io::Result<Vec<Function>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        // A machine without the bus has nothing on it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let functions = paths.iter().map(|path| {
        let number = |name| number(&fs::read_to_string(path.join(name))?);
        Ok(Function {
            vendor: number("vendor")?,
            device: number("device")?,
            class: number("class")?,
        })
    });
    functions.collect()
}

fn number(text: &str) -> io::Result<u32> {
    let digits = text.trim().strip_prefix("0x");
    let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    value.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn unexpected(functions: Vec<Function>) -> Option<Function> {
    let mut seen = Vec::new();
    functions.into_iter().find(|function| {
        let Some(kind) = Kind::of(*function) else {
            return true;
        };
        seen.push(kind);
        seen.iter().filter(|one| **one == kind).count() > kind.most()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn virtio(device: u32) -> Function {
        Function {
            vendor: 0x1af4,
            device,
            class: 0xff_0000,
        }
    }

    /// As QEMU's q35 has it: host bridge, ISA bridge, management bus; then what a pod needs.
    fn pod() -> Vec<Function> {
        let machine = [
            (0x29c0, 0x06_0000),
            (0x2918, 0x06_0100),
            (0x2930, 0x0c_0500),
        ];
        let machine = machine.map(|(device, class)| Function {
            vendor: 0x8086,
            device,
            class,
        });
        let mut functions = machine.to_vec();
        functions.extend([0x1000, 0x1001, 0x1001, 0x1005, 0x1053].map(virtio));
        functions
    }

    #[test]
    fn a_pods_devices_are_expected_and_any_other_is_not() {
        assert_eq!(unexpected(pod()), None);
        // Balloon, SCSI, 9p, graphics, input, sockets twice, file system, memory; a console.
        let console = if cfg!(feature = "simulated-tee") {
            0x1004
        } else {
            0x1003
        };
        for device in [
            console, 0x1002, 0x1004, 0x1009, 0x1050, 0x1052, 0x1053, 0x105a, 0x1058,
        ] {
            let mut functions = pod();
            functions.push(virtio(device));
            assert_eq!(unexpected(functions), Some(virtio(device)), "{device:x}");
        }
        let nvme = Function {
            vendor: 0x1b36,
            device: 0x0010,
            class: 0x01_0802,
        };
        assert_eq!(unexpected(vec![nvme]), Some(nvme));
    }

    #[test]
    fn no_kind_has_more_than_a_pod_needs() {
        for device in [0x1001, 0x1042, 0x1044, 0x1012] {
            let mut functions = pod();
            functions.push(virtio(device));
            assert!(unexpected(functions).is_some(), "{device:x}");
        }
    }

    #[test]
    fn functions_are_read_as_the_kernel_writes_them() {
        let bus = tempfile::tempdir().unwrap();
        let function = bus.path().join("0000:00:01.0");
        fs::create_dir(&function).unwrap();
        for (name, text) in [
            ("vendor", "0x1af4\n"),
            ("device", "0x1000\n"),
            ("class", "0x020000\n"),
        ] {
            fs::write(function.join(name), text).unwrap();
        }
        let found = read(bus.path()).unwrap();
        assert_eq!(
            found,
            [Function {
                vendor: 0x1af4,
                device: 0x1000,
                class: 0x02_0000
            }]
        );
        fs::write(function.join("class"), "bridge").unwrap();
        assert!(read(bus.path()).is_err());
        assert!(read(Path::new("/nowhere")).unwrap().is_empty());
    }
}
