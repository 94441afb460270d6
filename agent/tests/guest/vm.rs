//! A guest under QEMU's own CPU, with vsock through `vhost-device-vsock`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agent_protocol::limits::SCRATCH_DISK_SERIAL;

use crate::tools::{Tools, run};

pub(crate) const MAC: &str = "02:00:00:00:00:01";

pub(crate) struct Vm {
    qemu: Child,
    vsock: Child,
    folder: PathBuf,
}

/// What a VM has that another has not.
pub(crate) struct Devices<'a> {
    pub(crate) disks: &'a [PathBuf],
    /// The serial number of each disk.
    pub(crate) serial: &'a str,
    /// The control socket of its TPM.
    pub(crate) tpm: Option<&'a Path>,
}

impl Drop for Vm {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.vsock] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Vm {
    /// Boots an image with these disks, which all say that they are the scratch disk.
    pub(crate) fn start(tools: &Tools, folder: &Path, image: &Path, disks: &[PathBuf]) -> Self {
        let serial = SCRATCH_DISK_SERIAL;
        let devices = Devices {
            disks,
            serial,
            tpm: None,
        };
        Self::boot(tools, folder, image, &devices)
    }

    /// Boots an image with these devices.
    pub(crate) fn boot(tools: &Tools, folder: &Path, image: &Path, devices: &Devices<'_>) -> Self {
        let folder = folder.to_owned();
        fs::create_dir_all(&folder).unwrap();
        let device = folder.join("device.sock");
        let sockets = format!(
            "guest-cid=3,socket={},uds-path={}",
            device.display(),
            folder.join("vsock.sock").display()
        );
        let vsock = Command::new(&tools.vsock)
            .args(["--vm", &sockets])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&device);
        let qemu = qemu(tools, &folder, image, devices);
        Self {
            qemu,
            vsock,
            folder,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("vsock.sock")
    }

    pub(crate) fn console(&self) -> String {
        let bytes = fs::read(self.folder.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the guest ends by itself within this time.
    pub(crate) fn ends(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            if self.qemu.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

/// Builds the guest image with this build's agent; answers with its folder.
pub(crate) fn build_image(tools: &Tools, folder: &Path, authority: &Path) -> PathBuf {
    run(Command::new(&tools.image_builder)
        .args(["build", "--agent", env!("CARGO_BIN_EXE_kata-agent"), "--ca"])
        .arg(authority)
        .args(["--compression", "none", "--output"])
        .arg(folder));
    folder.join("default")
}

/// A sparse file of so many MiB.
pub(crate) fn make_disk(folder: &Path, name: &str, mib: u64) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path
}

fn qemu(tools: &Tools, folder: &Path, image: &Path, devices: &Devices<'_>) -> Child {
    let Devices { disks, serial, tpm } = devices;
    let device = folder.join("device.sock");
    let manifest = fs::read_to_string(image.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let cmdline = format!("{} agent.log=debug", manifest["cmdline"].as_str().unwrap());
    let console = File::create(folder.join("console")).unwrap();
    let mut command = Command::new(&tools.qemu);
    if let Some(tpm) = tpm {
        let socket = format!("socket,id=tpm,path={}", tpm.display());
        command.args([
            "-chardev",
            &socket,
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
        ]);
        command.args(["-device", "tpm-crb,tpmdev=tpm0"]);
    }
    for (index, disk) in disks.iter().enumerate() {
        let drive = format!("id=disk{index},if=none,format=raw,file={}", disk.display());
        let device = format!("virtio-blk-pci,drive=disk{index},serial={serial}");
        command.args(["-drive", &drive, "-device", &device]);
    }
    command
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .args([
            "-machine",
            "q35,memory-backend=ram,sata=off",
            "-accel",
            "tcg,thread=multi",
        ])
        .args(["-cpu", "max", "-smp", "2", "-m", "512M"])
        .args(["-object", "memory-backend-memfd,id=ram,size=512M,share=on"])
        .args([
            "-chardev",
            &format!("socket,id=v,path={}", device.display()),
        ])
        .args(["-device", "vhost-user-vsock-pci,chardev=v"])
        .args(["-netdev", "user,id=n"])
        .args([
            "-device",
            &format!("virtio-net-pci,netdev=n,romfile=,mac={MAC}"),
        ])
        .args(["-chardev", "stdio,id=c,signal=off", "-serial", "chardev:c"])
        .arg("-kernel")
        .arg(image.join("vmlinuz"))
        .arg("-initrd")
        .arg(image.join("initrd.img"))
        .args(["-append", &cmdline])
        .stdin(Stdio::null())
        .stdout(console.try_clone().unwrap())
        .stderr(console)
        .spawn()
        .unwrap()
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        assert!(
            Instant::now() < deadline,
            "{} does not appear",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
