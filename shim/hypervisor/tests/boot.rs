//! Boots real VMs: QEMU, the guest image, the vsock device of this node.
//!
//! Needs what `hack/build` installs: the guest image, and on nodes without `/dev/vhost-vsock`
//! also `vhost-device-vsock`. `KATA_CC_PREFIX` says where, else it is `target/kata-cc`. Without
//! them the tests print why they are skipped.

#![expect(clippy::unwrap_used, reason = "this is all test code")]

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use shim_hypervisor::{
    ConnectError, Disk, Hypervisor as _, Nic, ProcessExit, Qemu, StartError, User, Users, Vm,
    VmConfig, VmExitCause, Vsock, clean_up,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// Emulated guests on a busy machine need time.
const BOOT: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(5);
const AGENT_PORT: u32 = 1024;

struct Bed {
    image: PathBuf,
    cmdline: String,
    device: Option<PathBuf>,
    state: tempfile::TempDir,
}

impl Bed {
    fn open() -> Option<Self> {
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kata-cc");
        let prefix = std::env::var_os("KATA_CC_PREFIX").unwrap_or(built.into());
        let image = Path::new(&prefix).join("guest/default");
        if !image.join("manifest.json").exists() {
            eprintln!(
                "skipped: no guest image in {}; run hack/build",
                image.display()
            );
            return None;
        }
        let device = Some(Path::new(&prefix).join("bin/vhost-device-vsock"));
        let device = device.filter(|path| path.exists());
        if device.is_none() && !Path::new("/dev/vhost-vsock").exists() {
            eprintln!("skipped: neither /dev/vhost-vsock nor vhost-device-vsock; run hack/build");
            return None;
        }
        let manifest = std::fs::read(image.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let cmdline = manifest["cmdline"].as_str().unwrap().to_owned();
        Some(Self {
            image,
            cmdline,
            device,
            state: tempfile::tempdir().unwrap(),
        })
    }

    fn config(&self) -> VmConfig {
        VmConfig {
            memory_mib: NonZeroU32::new(512).unwrap(),
            kernel: self.image.join("vmlinuz"),
            initrd: self.image.join("initrd.img"),
            cmdline: self.cmdline.clone(),
            vsock: Vsock::Auto {
                device: self.device.clone(),
            },
            ..VmConfig::new("test", self.state.path().to_owned())
        }
    }

    async fn start(&self) -> Box<dyn Vm> {
        Qemu.start(self.config()).await.unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// `grpc.Health/Check` as ttrpc puts it on the wire: a ten-byte header, then the request with
/// service in field 1, method in field 2, and a timeout in field 4.
async fn health_check(stream: &mut UnixStream) -> Vec<u8> {
    let mut payload = vec![0x0a, 11];
    payload.extend(b"grpc.Health");
    payload.extend([0x12, 5]);
    payload.extend(b"Check");
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 1, 1, 0]);
    frame.extend(payload);
    stream.write_all(&frame).await.unwrap();
    let mut header = [0; 10];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header[4..9], [0, 0, 0, 1, 2], "a response on stream 1");
    let length = u32::from_be_bytes(header[..4].try_into().unwrap());
    let mut response = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut response).await.unwrap();
    response
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn the_agent_answers_and_stop_leaves_nothing() {
    let Some(bed) = Bed::open() else { return };
    let start = Instant::now();
    let vm = bed.start().await;
    eprintln!("vm started after {:?}", start.elapsed());
    let mut stream = vm.connect(AGENT_PORT, BOOT).await.unwrap();
    eprintln!("agent connected after {:?}", start.elapsed());
    let response = health_check(&mut stream).await;
    // HealthCheckResponse.status = SERVING (1), in the payload (field 2) of the ttrpc response.
    assert!(
        response.windows(4).any(|bytes| bytes == [0x12, 2, 0x08, 1]),
        "{response:02x?}"
    );
    // A second connection beside the first, and a port where nobody listens.
    vm.connect(AGENT_PORT, BOOT).await.unwrap();
    let refused = vm.connect(4000, Duration::from_secs(1)).await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::Deadline { port: 4000, .. }),
        "{refused}"
    );

    let pids = vm.processes();
    assert_eq!(pids[0], vm.pid());
    assert!(pids.iter().all(|pid| alive(*pid)));
    vm.stop(GRACE).await.unwrap();
    vm.stop(GRACE).await.unwrap();
    let (first, second) = tokio::join!(vm.exited(), vm.exited());
    assert_eq!(first, second);
    assert_eq!(
        (first.cause, first.status),
        (VmExitCause::Requested, ProcessExit::Code(0))
    );
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(
        bed.files().iter().all(|name| name.ends_with(".log")),
        "{:?}",
        bed.files()
    );
}

/// Fields of `/proc/<pid>/status` that say who a process is.
fn identity(pid: u32) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let names = [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapPrm:",
        "CapEff:",
        "CapAmb:",
        "NoNewPrivs:",
    ];
    let field = |name: &&str| {
        let value = status.lines().find_map(|line| line.strip_prefix(*name));
        value
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    names.iter().map(field).collect()
}

/// What a process finds at a path.
fn finds(pid: u32, path: &Path) -> bool {
    let inside = format!("/proc/{pid}/root{}", path.display());
    Path::new(&inside).exists()
}

#[tokio::test]
async fn each_process_of_a_vm_is_a_user_of_its_own_and_finds_only_its_files() {
    let Some(bed) = Bed::open() else { return };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root starts processes of other users");
        return;
    }
    let disk = bed.state.path().join("disk.img");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let user = |id| User::new(NonZeroU32::new(id).unwrap());
    let config = VmConfig {
        disks: vec![Disk {
            path: disk.clone(),
            read_only: false,
            serial: None,
        }],
        entropy_source: Some("/dev/urandom".into()),
        users: Some(Users {
            hypervisor: user(1_900_000_001),
            vsock_device: user(1_900_000_002),
        }),
        ..bed.config()
    };
    let (kernel, initrd) = (config.kernel.clone(), config.initrd.clone());
    let vm = Qemu.start(config).await.unwrap();
    let mut stream = vm.connect(AGENT_PORT, BOOT).await.unwrap();
    health_check(&mut stream).await;

    let none = "0000000000000000";
    let sockets = bed.state.path().join("vsock");
    for (pid, uid) in vm
        .processes()
        .into_iter()
        .zip([1_900_000_001, 1_900_000_002])
    {
        let all = format!("{uid} {uid} {uid} {uid}");
        assert_eq!(identity(pid), [&all, &all, "", none, none, none, "1"]);
        for namespace in ["mnt", "net", "ipc", "uts"] {
            let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{namespace}"));
            assert_ne!(of(&pid.to_string()).unwrap(), of("self").unwrap());
        }
        for absent in [
            "/etc/passwd",
            "/proc/1",
            "/sys/kernel",
            "/run",
            "/root",
            "/var",
            "/dev/kvm",
        ] {
            assert!(!finds(pid, Path::new(absent)), "{absent}");
        }
        assert!(!finds(pid, &disk), "a disk is an open file, not a name");
        assert!(!finds(pid, &bed.state.path().join("vm.json")));
    }
    let is_hypervisor = |pid| pid == vm.pid();
    for pid in vm.processes() {
        assert_eq!(finds(pid, &kernel), is_hypervisor(pid));
        assert_eq!(finds(pid, &initrd), is_hypervisor(pid));
        assert_eq!(finds(pid, &sockets), !is_hypervisor(pid));
    }
    vm.stop(GRACE).await.unwrap();
    let left = bed.files();
    let is_expected = |name: &String| name.ends_with(".log") || name == "disk.img";
    assert!(left.iter().all(is_expected), "{left:?}");
}

#[tokio::test]
async fn a_killed_hypervisor_is_noticed_at_once() {
    let Some(bed) = Bed::open() else { return };
    let vm = bed.start().await;
    let pid = i32::try_from(vm.pid()).unwrap();
    let kill = async {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        Instant::now()
    };
    // The connection attempt ends with the VM and not with its own deadline.
    let (connected, killed) = tokio::join!(vm.connect(4000, BOOT), kill);
    assert!(
        killed.elapsed() < Duration::from_secs(3),
        "{:?}",
        killed.elapsed()
    );
    let Err(ConnectError::Exited { exit, .. }) = connected else {
        panic!("{connected:?}")
    };
    assert_eq!(
        (exit.cause, exit.status),
        (VmExitCause::Died, ProcessExit::Signal(9))
    );
    vm.stop(GRACE).await.unwrap();
}

#[tokio::test]
async fn dropping_a_vm_kills_its_processes() {
    let Some(bed) = Bed::open() else { return };
    let vm = bed.start().await;
    let pids = vm.processes();
    drop(vm);
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(Instant::now() < deadline, "{pids:?} are still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        bed.files().iter().all(|name| name.ends_with(".log")),
        "{:?}",
        bed.files()
    );
}

#[tokio::test]
async fn clean_up_kills_what_the_record_names() {
    let Some(bed) = Bed::open() else { return };
    let vm = bed.start().await;
    let pids = vm.processes();
    let directory = bed.state.path().to_owned();
    tokio::task::spawn_blocking(move || clean_up(&directory))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(vm.exited().await.cause, VmExitCause::Died);
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(bed.files().is_empty(), "{:?}", bed.files());
}

#[tokio::test]
async fn a_guest_that_cannot_boot_is_quoted() {
    let Some(bed) = Bed::open() else { return };
    let broken = bed.state.path().join("broken-initrd");
    std::fs::write(&broken, "this is no cpio archive").unwrap();
    let cmdline = "console=ttyS0 panic=-1 rdinit=/init root=/dev/none".to_owned();
    let vm = Qemu
        .start(VmConfig {
            initrd: broken,
            cmdline,
            ..bed.config()
        })
        .await
        .unwrap();
    let error = vm.connect(AGENT_PORT, BOOT).await.unwrap_err();
    let ConnectError::Exited { exit, console, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(exit.cause, VmExitCause::GuestReset);
    assert!(console.contains("anic"), "{console}");
    let log = std::fs::read_to_string(bed.state.path().join("console.log")).unwrap();
    assert!(log.contains("Linux version"), "{log}");
}

#[tokio::test]
async fn a_hypervisor_that_refuses_its_arguments_is_quoted() {
    let Some(bed) = Bed::open() else { return };
    let config = VmConfig {
        machine_type: "pdp11".to_owned(),
        ..bed.config()
    };
    let error = Qemu.start(config).await.map(|vm| vm.pid()).unwrap_err();
    assert!(matches!(error, StartError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("pdp11"), "{error}");
    assert!(
        bed.files().iter().all(|name| name.ends_with(".log")),
        "{:?}",
        bed.files()
    );
}

#[tokio::test]
async fn disks_and_interfaces_are_accepted_under_the_sandbox() {
    let Some(bed) = Bed::open() else { return };
    let file = |name: &str| {
        let path = bed.state.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        path
    };
    let disks = vec![
        Disk {
            path: file("a,b"),
            read_only: true,
            serial: Some("initdata".to_owned()),
        },
        Disk {
            path: file("scratch"),
            read_only: false,
            serial: None,
        },
    ];
    let nics = vec![
        Nic {
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1450,
            tap: tap::open("one", 1),
        },
        Nic {
            mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
            tap: tap::open("two", 2),
        },
    ];
    let vcpus = NonZeroU32::new(2).unwrap();
    let entropy_source = Some("/dev/urandom".into());
    let config = VmConfig {
        disks,
        nics,
        vcpus,
        entropy_source,
        ..bed.config()
    };
    let vm = Qemu.start(config).await.unwrap();
    vm.stop(GRACE).await.unwrap();
    assert_eq!(vm.exited().await.message, "");
}

mod tap {
    #![expect(unsafe_code, reason = "TUNSETIFF has no safe form")]

    use std::os::fd::{AsRawFd as _, OwnedFd};

    use nix::libc;

    nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);

    /// A tap device with so many queues, in a network namespace of its own.
    pub(super) fn open(name: &str, queues: usize) -> Vec<OwnedFd> {
        let name = name.to_owned();
        let opened = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            (0..queues).map(|_| queue(&name, queues > 1)).collect()
        });
        opened.join().unwrap()
    }

    fn queue(name: &str, several: bool) -> OwnedFd {
        let mut options = std::fs::OpenOptions::new();
        let tun = options.read(true).write(true).open("/dev/net/tun").unwrap();
        // SAFETY: the structure consists of integers and byte arrays.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::try_from(from).unwrap();
        }
        let several = if several { libc::IFF_MULTI_QUEUE } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap();
        // SAFETY: the kernel reads the structure, which outlives the call.
        unsafe { tun_set_iff(tun.as_raw_fd(), &request) }.unwrap();
        tun.into()
    }
}

/// The process that the next test kills. It is started as a test of its own.
#[tokio::test]
#[ignore = "started by killing_the_owner_takes_the_vm_along"]
async fn owner_of_a_vm() {
    let Some(bed) = Bed::open() else { return };
    let vm = bed.start().await;
    println!("processes {:?}", vm.processes());
    vm.exited().await;
}

#[test]
fn killing_the_owner_takes_the_vm_along() {
    use std::io::BufRead as _;
    if Bed::open().is_none() {
        return;
    }
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["owner_of_a_vm", "--exact", "--ignored", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find_map(|line| {
        Some(
            line.split_once("processes [")?
                .1
                .trim_end_matches(']')
                .to_owned(),
        )
    });
    let pids: Vec<u32> = line
        .unwrap()
        .split(", ")
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(
        !pids.is_empty() && pids.iter().all(|pid| alive(*pid)),
        "{pids:?}"
    );
    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(Instant::now() < deadline, "{pids:?} survived their owner");
        std::thread::sleep(Duration::from_millis(10));
    }
}
