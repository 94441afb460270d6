//! QEMU's command line, as a pure function.
//!
//! Everything that was probed, opened or chosen comes in as a value, so that each combination is
//! a row in a table of tests. Names of objects are ours (`disk0`, `nic0`), never the caller's.
//! Options that take paths with commas are given as JSON or with the comma doubled.
//!
//! The oldest QEMU that knows each option, by its change log; all are tried with 10.0:
//!
//! | option | oldest | why |
//! |---|---|---|
//! | `-nodefaults`, `-no-user-config`, `-nographic`, `-no-reboot`, `-vga none`, `-name` | 1.2 | nothing that is not named here |
//! | `-sandbox on,…=deny` | 2.11 | system calls that QEMU does not need, `execve` among them |
//! | `-accel` | 2.9 | one for KVM, one thread per virtual CPU for emulation |
//! | `-machine …,dump-guest-core=off,mem-merge=off` | 1.3 | guest memory stays out of core dumps and is not merged with other VMs' |
//! | `-machine q35,sata=off,smbus=off,vmport=off,usb=off` | 2.6 | devices that nobody uses |
//! | `-machine …,kernel-irqchip=split` | 2.6 | less of the machine in the host's kernel |
//! | `-machine q35,hpet=off` | 6.0 | the guest has better clocks |
//! | `-machine …,memory-backend=`, `-object memory-backend-memfd` | 5.0 | others map the guest's memory |
//! | `-object` as JSON | 6.0 | paths may hold commas |
//! | `-blockdev` as JSON | 2.9 | |
//! | `-add-fd`, `/dev/fdset/` | 1.3 | the shim opened the disk |
//! | `-chardev socket,fd=` | 2.12 | monitor and vsock device without a path to race for |
//! | `-chardev stdio` as console | 1.2 | no path either |
//! | `-netdev tap,fd=`, `fds=`, `vhostfd=`, `vhostfds=` | 1.3 | the shim opened the tap and `/dev/vhost-net` |
//! | `-device virtio-net-pci,host_mtu=` | 2.9 | |
//! | `-device vhost-vsock-pci,vhostfd=` | 2.8 | |
//! | `-device vhost-user-vsock-pci` | 5.1 | nodes without `/dev/vhost-vsock` |
//! | `-machine …,confidential-guest-support=` | 6.0 | |
//! | `-object sev-snp-guest` | 9.1 | see [`crate::snp`] |

use std::{ffi::OsString, os::fd::RawFd, path::Path};

use serde_json::json;

use crate::{
    config::{Disk, VmConfig},
    probe::Chosen,
    snp,
};

/// What is known when the command line is written: the wish and what became of it.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) config: &'a VmConfig,
    pub(crate) accelerator: Chosen,
    /// Our monitor: one end of a socket pair.
    pub(crate) monitor: RawFd,
    pub(crate) vsock: Vsock,
    /// For each disk, its open file and whether that is a block device.
    pub(crate) disks: Vec<(RawFd, bool)>,
    /// For each interface, its open tap files.
    pub(crate) taps: Vec<Vec<RawFd>>,
    /// What makes the guest confidential.
    pub(crate) snp: Option<snp::Object>,
    /// For each interface, an open `/dev/vhost-net` for each tap, where the node has one.
    pub(crate) vhost_net: Vec<Vec<RawFd>>,
}

/// The vsock device that was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vsock {
    /// Open vhost-vsock file with a reserved CID.
    Vhost { fd: RawFd, cid: u32 },
    /// Connection to the vhost-user device.
    VhostUser { fd: RawFd },
}

/// QEMU's arguments, without the program itself.
pub(crate) fn arguments(launch: &Launch<'_>) -> Vec<OsString> {
    let config = launch.config;
    let mut arguments = Arguments(Vec::new());
    arguments.flags(&["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
    arguments.option("-vga", "none");
    arguments.option(
        "-name",
        format!("{},debug-threads=on", doubled_commas(&config.id)),
    );
    if !config.disable_sandbox {
        let denied = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        arguments.option("-sandbox", denied);
    }
    processor(&mut arguments, launch);
    memory(&mut arguments, launch);
    monitor_and_console(&mut arguments, launch);
    for (index, (disk, opened)) in config.disks.iter().zip(&launch.disks).enumerate() {
        block(&mut arguments, index, disk, *opened);
    }
    for index in 0..config.nics.len() {
        network(&mut arguments, launch, index);
    }
    vsock(&mut arguments, launch.vsock);
    if let Some(source) = &config.entropy_source {
        let filename = source.to_string_lossy();
        arguments.json(
            "-object",
            &json!({"qom-type": "rng-random", "id": "rng0", "filename": filename}),
        );
        arguments.option("-device", "virtio-rng-pci,rng=rng0");
    }
    boot(&mut arguments, config);
    arguments.0
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn json(&mut self, name: &str, value: &serde_json::Value) {
        self.option(name, value.to_string());
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.option(name, path.as_os_str());
    }
}

fn processor(arguments: &mut Arguments, launch: &Launch<'_>) {
    let config = launch.config;
    // Guest memory stays out of core dumps, and identical pages are not merged with other VMs'.
    let mut machine = format!("{},dump-guest-core=off,mem-merge=off", config.machine_type);
    if config.machine_type.starts_with("q35") || config.machine_type.starts_with("pc-q35") {
        machine.push_str(",hpet=off,sata=off,smbus=off,vmport=off,usb=off");
    }
    if launch.accelerator == Chosen::Kvm {
        machine.push_str(",kernel-irqchip=split");
    }
    if shares_memory(launch) {
        machine.push_str(",memory-backend=ram");
    }
    if launch.snp.is_some() {
        append(
            &mut machine,
            &format!("confidential-guest-support={}", snp::OBJECT),
        );
    }
    append(&mut machine, &config.machine_accelerators);
    arguments.option("-machine", machine);

    let (accelerator, default_model) = match launch.accelerator {
        Chosen::Kvm if launch.snp.is_some() => ("kvm", snp::DEFAULT_CPU),
        Chosen::Kvm => ("kvm", "host"),
        // The model is measured, so a simulated launch has it too.
        Chosen::Tcg if launch.snp.is_some() => ("tcg,thread=multi", snp::DEFAULT_CPU),
        Chosen::Tcg => ("tcg,thread=multi", "max"),
    };
    arguments.option("-accel", accelerator);
    let mut cpu = config
        .cpu_model
        .as_deref()
        .unwrap_or(default_model)
        .to_owned();
    append(&mut cpu, &config.cpu_features);
    arguments.option("-cpu", cpu);
    let vcpus = config.vcpus;
    arguments.option(
        "-smp",
        format!("{vcpus},maxcpus={vcpus},sockets=1,cores={vcpus},threads=1"),
    );
}

fn append(list: &mut String, more: &str) {
    if !more.is_empty() {
        list.push(',');
        list.push_str(more);
    }
}

/// A vhost-user device maps the guest's memory, and a confidential guest's is private only on
/// top of a file.
fn shares_memory(launch: &Launch<'_>) -> bool {
    matches!(launch.vsock, Vsock::VhostUser { .. }) || launch.snp.is_some()
}

fn memory(arguments: &mut Arguments, launch: &Launch<'_>) {
    let mib = launch.config.memory_mib;
    arguments.option("-m", format!("{mib}M"));
    if shares_memory(launch) {
        arguments.option(
            "-object",
            format!("memory-backend-memfd,id=ram,size={mib}M,share=on"),
        );
    }
    if let Some(object) = &launch.snp {
        arguments.json("-object", object.json());
    }
}

fn monitor_and_console(arguments: &mut Arguments, launch: &Launch<'_>) {
    arguments.option(
        "-chardev",
        format!("socket,id=monitor,fd={}", launch.monitor),
    );
    arguments.option("-mon", "chardev=monitor,mode=control");
    arguments.option("-chardev", "stdio,id=console,signal=off");
    arguments.option("-serial", "chardev:console");
}

fn block(arguments: &mut Arguments, index: usize, disk: &Disk, (fd, is_device): (RawFd, bool)) {
    let driver = if is_device { "host_device" } else { "file" };
    arguments.option("-add-fd", format!("fd={fd},set={index}"));
    arguments.json(
        "-blockdev",
        &json!({
            "driver": "raw",
            "node-name": format!("disk{index}"),
            "read-only": disk.read_only,
            "discard": "unmap",
            "file": {
                "driver": driver,
                "filename": format!("/dev/fdset/{index}"),
                "read-only": disk.read_only,
                "discard": "unmap",
            },
        }),
    );
    let mut device = format!("virtio-blk-pci,drive=disk{index}");
    if let Some(serial) = &disk.serial {
        device.push_str(",serial=");
        device.push_str(serial);
    }
    if !disk.read_only {
        // The guest is told; by default a full node would stop the VM without a word.
        device.push_str(",werror=report,rerror=report");
    }
    arguments.option("-device", device);
}

fn network(arguments: &mut Arguments, launch: &Launch<'_>, index: usize) {
    let (Some(nic), Some(taps)) = (launch.config.nics.get(index), launch.taps.get(index)) else {
        return;
    };
    let fds: Vec<String> = taps.iter().map(RawFd::to_string).collect();
    let (key, multiqueue) = match fds.len() {
        1 => ("fd", String::new()),
        // Two vectors per queue pair, one for the configuration, one for the control queue.
        pairs => ("fds", format!(",mq=on,vectors={}", 2 * pairs + 2)),
    };
    let vhost: &[RawFd] = launch.vhost_net.get(index).map_or(&[], Vec::as_slice);
    let vhost: Vec<String> = vhost.iter().map(RawFd::to_string).collect();
    let vhost = if vhost.is_empty() {
        String::new()
    } else {
        format!(",vhost=on,vhost{key}={}", vhost.join(":"))
    };
    arguments.option(
        "-netdev",
        format!("tap,id=nic{index},{key}={}{vhost}", fds.join(":")),
    );
    let [a, b, c, d, e, f] = nic.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    // Without the boot ROM: the firmware would look for a network to boot from.
    let device = format!(
        "virtio-net-pci,netdev=nic{index},mac={mac},host_mtu={}",
        nic.mtu
    );
    arguments.option("-device", format!("{device}{multiqueue},romfile="));
}

fn vsock(arguments: &mut Arguments, vsock: Vsock) {
    match vsock {
        Vsock::Vhost { fd, cid } => {
            let device = format!("vhost-vsock-pci,guest-cid={cid},vhostfd={fd}");
            arguments.option("-device", device);
        }
        Vsock::VhostUser { fd } => {
            arguments.option("-chardev", format!("socket,id=vsock,fd={fd}"));
            arguments.option("-device", "vhost-user-vsock-pci,id=vsock,chardev=vsock");
        }
    }
}

fn boot(arguments: &mut Arguments, config: &VmConfig) {
    if let Some(firmware) = &config.firmware {
        arguments.path("-bios", firmware);
    }
    arguments.path("-kernel", &config.kernel);
    arguments.path("-initrd", &config.initrd);
    arguments.option("-append", &config.cmdline);
}

fn doubled_commas(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests;
