//! One row per combination; the whole command line is spelled out, so that a change shows.

use std::num::NonZeroU32;

use super::*;
use crate::config::Nic;

const COMMON: &str = "-nodefaults -no-user-config -nographic -no-reboot -vga none \
    -name pod,debug-threads=on \
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
const MACHINE: &str = "-machine q35,dump-guest-core=off,mem-merge=off,hpet=off,sata=off,smbus=off,\
    vmport=off,usb=off";
const ONE_CPU: &str = "-smp 1,maxcpus=1,sockets=1,cores=1,threads=1";
const CHANNELS: &str = "-chardev socket,id=monitor,fd=10 -mon chardev=monitor,mode=control \
    -chardev stdio,id=console,signal=off -serial chardev:console";
const VHOST: &str = "-device vhost-vsock-pci,guest-cid=77,vhostfd=11";
const BOOT: &str = "-kernel /k -initrd /i -append console=ttyS0";

fn config() -> VmConfig {
    VmConfig {
        kernel: "/k".into(),
        initrd: "/i".into(),
        cmdline: "console=ttyS0".into(),
        ..VmConfig::new("pod", "/run/kata-cc/pod".into())
    }
}

fn launch(config: &VmConfig) -> Launch<'_> {
    Launch {
        config,
        accelerator: Chosen::Kvm,
        monitor: 10,
        vsock: Vsock::Vhost { fd: 11, cid: 77 },
        disks: Vec::new(),
        taps: Vec::new(),
        snp: None,
        vhost_net: Vec::new(),
    }
}

#[track_caller]
fn assert_golden(launch: &Launch<'_>, expected: &[&str]) {
    let line: Vec<String> = arguments(launch)
        .iter()
        .map(|a| a.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(line.join(" "), expected.join(" "));
}

fn nic(mtu: u16) -> Nic {
    Nic {
        mac: [0x02, 0, 0, 0xab, 0xcd, 0xef],
        mtu,
        tap: Vec::new(),
    }
}

#[test]
fn kvm_with_vhost() {
    let machine = format!("{MACHINE},kernel-irqchip=split");
    let cpu = "-accel kvm -cpu host";
    let golden = [
        COMMON, &machine, cpu, ONE_CPU, "-m 512M", CHANNELS, VHOST, BOOT,
    ];
    assert_golden(&launch(&config()), &golden);
}

#[test]
fn tcg_with_vhost_user_shares_the_memory() {
    let config = config();
    let launch = Launch {
        accelerator: Chosen::Tcg,
        vsock: Vsock::VhostUser { fd: 12 },
        ..launch(&config)
    };
    let machine = format!("{MACHINE},memory-backend=ram");
    let golden = [
        COMMON,
        &machine,
        "-accel tcg,thread=multi -cpu max",
        ONE_CPU,
        "-m 512M -object memory-backend-memfd,id=ram,size=512M,share=on",
        CHANNELS,
        "-chardev socket,id=vsock,fd=12 -device vhost-user-vsock-pci,id=vsock,chardev=vsock",
        BOOT,
    ];
    assert_golden(&launch, &golden);
}

#[test]
fn sizes_models_features_and_firmware() {
    let config = VmConfig {
        vcpus: NonZeroU32::new(4).unwrap(),
        memory_mib: NonZeroU32::new(2048).unwrap(),
        firmware: Some("/fw,1.fd".into()),
        machine_accelerators: "pit=off".into(),
        cpu_model: Some("EPYC-v4".into()),
        cpu_features: "pmu=off,-svm".into(),
        ..config()
    };
    let machine = format!("{MACHINE},kernel-irqchip=split,pit=off");
    let golden = [
        COMMON,
        &machine,
        "-accel kvm -cpu EPYC-v4,pmu=off,-svm",
        "-smp 4,maxcpus=4,sockets=1,cores=4,threads=1 -m 2048M",
        CHANNELS,
        VHOST,
        "-bios /fw,1.fd",
        BOOT,
    ];
    assert_golden(&launch(&config), &golden);
}

#[test]
fn another_machine_type_gets_no_options_it_may_not_know() {
    let config = VmConfig {
        machine_type: "microvm".into(),
        ..config()
    };
    let machine = "-machine microvm,dump-guest-core=off,mem-merge=off,kernel-irqchip=split";
    let cpu = "-accel kvm -cpu host";
    let golden = [
        COMMON, machine, cpu, ONE_CPU, "-m 512M", CHANNELS, VHOST, BOOT,
    ];
    assert_golden(&launch(&config), &golden);
}

#[test]
fn disks_in_order_with_serial_and_access() {
    let disk = |path: &str, read_only, serial: Option<&str>| Disk {
        path: path.into(),
        read_only,
        serial: serial.map(str::to_owned),
    };
    let disks = vec![
        disk("/a,\"b", true, Some("initdata")),
        disk("/dev/sdx", false, None),
    ];
    let config = VmConfig { disks, ..config() };
    let launch = Launch {
        disks: vec![(30, false), (31, true)],
        ..launch(&config)
    };
    let machine = format!("{MACHINE},kernel-irqchip=split");
    let golden = [
        COMMON,
        &machine,
        "-accel kvm -cpu host",
        ONE_CPU,
        "-m 512M",
        CHANNELS,
        "-add-fd fd=30,set=0",
        r#"-blockdev {"discard":"unmap","driver":"raw","file":{"discard":"unmap","driver":"file","filename":"/dev/fdset/0","read-only":true},"node-name":"disk0","read-only":true}"#,
        "-device virtio-blk-pci,drive=disk0,serial=initdata",
        "-add-fd fd=31,set=1",
        r#"-blockdev {"discard":"unmap","driver":"raw","file":{"discard":"unmap","driver":"host_device","filename":"/dev/fdset/1","read-only":false},"node-name":"disk1","read-only":false}"#,
        "-device virtio-blk-pci,drive=disk1,werror=report,rerror=report",
        VHOST,
        BOOT,
    ];
    assert_golden(&launch, &golden);
}

#[test]
fn interfaces_with_one_queue_and_with_several() {
    let config = VmConfig {
        nics: vec![nic(1500), nic(1400)],
        ..config()
    };
    let launch = Launch {
        taps: vec![vec![20], vec![21, 22]],
        vhost_net: vec![vec![23], vec![24, 25]],
        ..launch(&config)
    };
    let machine = format!("{MACHINE},kernel-irqchip=split");
    let golden = [
        COMMON,
        &machine,
        "-accel kvm -cpu host",
        ONE_CPU,
        "-m 512M",
        CHANNELS,
        "-netdev tap,id=nic0,fd=20,vhost=on,vhostfd=23 \
         -device virtio-net-pci,netdev=nic0,mac=02:00:00:ab:cd:ef,host_mtu=1500,romfile=",
        "-netdev tap,id=nic1,fds=21:22,vhost=on,vhostfds=24:25 \
         -device virtio-net-pci,netdev=nic1,mac=02:00:00:ab:cd:ef,host_mtu=1400,mq=on,vectors=6,romfile=",
        VHOST,
        BOOT,
    ];
    assert_golden(&launch, &golden);
}

#[test]
fn no_sandbox_no_vhost_net_and_an_entropy_source() {
    let config = VmConfig {
        id: "a,b".into(),
        disable_sandbox: true,
        entropy_source: Some("/dev/urandom".into()),
        nics: vec![nic(1500)],
        ..config()
    };
    let launch = Launch {
        taps: vec![vec![20]],
        ..launch(&config)
    };
    let machine = format!("{MACHINE},kernel-irqchip=split");
    let golden = [
        "-nodefaults -no-user-config -nographic -no-reboot -vga none -name a,,b,debug-threads=on",
        &machine,
        "-accel kvm -cpu host",
        ONE_CPU,
        "-m 512M",
        CHANNELS,
        "-netdev tap,id=nic0,fd=20 \
         -device virtio-net-pci,netdev=nic0,mac=02:00:00:ab:cd:ef,host_mtu=1500,romfile=",
        VHOST,
        r#"-object {"filename":"/dev/urandom","id":"rng0","qom-type":"rng-random"}"#,
        "-device virtio-rng-pci,rng=rng0",
        BOOT,
    ];
    assert_golden(&launch, &golden);
}

#[test]
fn sev_snp_on_private_memory_with_measured_firmware() {
    let snp = crate::SevSnp {
        host_data: [0; 32],
        policy: 0x30000,
        identity: None,
    };
    let object = snp::Object::new(&snp, snp::Host::parse(0x10, 0x73).unwrap());
    let config = VmConfig {
        firmware: Some("/usr/share/ovmf/OVMF.amdsev.fd".into()),
        ..config()
    };
    let machine =
        format!("{MACHINE},kernel-irqchip=split,memory-backend=ram,confidential-guest-support=snp");
    let golden = [
        COMMON,
        &machine,
        "-accel kvm -cpu EPYC-v4",
        ONE_CPU,
        "-m 512M -object memory-backend-memfd,id=ram,size=512M,share=on",
        r#"-object {"cbitpos":51,"host-data":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","id":"snp","kernel-hashes":true,"policy":196608,"qom-type":"sev-snp-guest","reduced-phys-bits":1}"#,
        CHANNELS,
        VHOST,
        "-bios /usr/share/ovmf/OVMF.amdsev.fd",
        BOOT,
    ];
    assert_golden(
        &Launch {
            snp: Some(object),
            ..launch(&config)
        },
        &golden,
    );
}

#[test]
fn a_simulated_launch_differs_from_a_genuine_one_in_the_accelerator_alone() {
    let snp = crate::SevSnp {
        host_data: [7; 32],
        policy: 0x30000,
        identity: None,
    };
    let config = VmConfig {
        firmware: Some("/fw".into()),
        confidential: crate::Confidential::Simulated(snp.clone()),
        ..config()
    };
    let line = |accelerator, object| {
        arguments(&Launch {
            accelerator,
            snp: Some(object),
            ..launch(&config)
        })
    };
    let host = snp::Host::parse(0x10, 0x73).unwrap();
    let genuine = line(Chosen::Kvm, snp::Object::new(&snp, host));
    let object = snp::prepare(&config, Chosen::Tcg).unwrap().unwrap();
    let simulated = line(Chosen::Tcg, object);
    let differing: Vec<_> = genuine
        .iter()
        .zip(&simulated)
        .filter(|(one, other)| one != other)
        .map(|(_, other)| other.to_str().unwrap())
        .collect();
    let machine = format!("{MACHINE},memory-backend=ram,confidential-guest-support=snp")
        .replace("-machine ", "");
    assert_eq!(differing, [machine.as_str(), "tcg,thread=multi"]);
    assert_eq!(genuine.len(), simulated.len());
}
