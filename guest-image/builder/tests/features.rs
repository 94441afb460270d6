//! Each feature of our kernel at work: a guest with nothing but the kernel and Debian's own
//! tools makes the bridges, rules, tunnels and file systems that a pod may make.
//!
//! Needs QEMU and the tools below; says which one is missing and passes otherwise.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::BTreeSet,
    env, fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guest_image_builder::cpio::Archive;

const TIME_MAX: Duration = Duration::from_secs(300);
/// In the guest; the first is static.
const TOOLS: [&str; 9] = [
    "busybox",
    "ip",
    "bridge",
    "tc",
    "nft",
    "xtables-nft-multi",
    "wg",
    "ipcmk",
    "qemu-system-x86_64",
];
/// On this machine, to make images of file systems.
const MAKERS: [&str; 3] = ["mke2fs", "mkfs.erofs", "mksquashfs"];
/// Where iptables keeps its matches and targets.
const EXTENSIONS: &str = "/usr/lib/x86_64-linux-gnu/xtables";
/// Features without a case of their own, and what shows them.
const SHOWN_OTHERWISE: [&str; 5] = [
    // The guest starts at all, here and in the agent's tests.
    "virtual-machine",
    "devices",
    // The agent's tests write to an encrypted disk; what its mapping reads is refused or right.
    "scratch-disk",
    // `/proc/cpuinfo` tells of the emulated processor, not of the kernel.
    "mitigations",
    // What is out cannot be at work; the builder checks each option after configuring.
    "host-given",
];

#[test]
fn every_feature_of_the_kernel_is_at_work() {
    let tools = match find_all() {
        Ok(tools) => tools,
        Err(missing) => {
            eprintln!("skipped: no {missing}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let initrd = folder.path().join("initrd");
    fs::write(&initrd, archive(&tools, folder.path())).unwrap();
    let told = boot(&tools[8], &initrd);
    let cases: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("ok ") || line.starts_with("failed "))
        .collect();
    for case in &cases {
        eprintln!("{case}");
    }
    assert!(told.contains("features done"), "{told}");
    let failed = cases.iter().filter(|case| case.starts_with("failed "));
    assert_eq!(failed.count(), 0, "{told}");
    let names: BTreeSet<&str> = cases.iter().filter_map(|case| case.get(3..)).collect();
    for feature in listed() {
        let shown = names.iter().any(|name| name.starts_with(feature));
        assert!(
            shown || SHOWN_OTHERWISE.contains(&feature),
            "no case shows {feature}"
        );
    }
}

/// The features of the list.
fn listed() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("../../kernel/features").lines();
    let lines = lines.filter(|line| !line.starts_with(['#', ' ']));
    lines.filter_map(|line| Some(line.split_once(':')?.0))
}

fn find_all() -> Result<Vec<PathBuf>, &'static str> {
    let tools = TOOLS.into_iter().map(find).collect::<Result<_, _>>()?;
    MAKERS
        .into_iter()
        .try_for_each(|name| find(name).map(drop))?;
    Ok(tools)
}

fn find(name: &'static str) -> Result<PathBuf, &'static str> {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = env::split_paths(&path).map(|folder| folder.join(name));
    found.into_iter().find(|file| file.exists()).ok_or(name)
}

fn archive(tools: &[PathBuf], folder: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    for name in ["bin", "dev", "images"] {
        archive.directory(name, 0o755).unwrap();
    }
    archive.device("dev/console", 0o600, 5, 1).unwrap();
    let script = include_bytes!("features.sh").to_vec();
    archive.file("features.sh", 0o755, script).unwrap();
    let rules = include_bytes!("rules.nft").to_vec();
    archive.file("rules.nft", 0o644, rules).unwrap();
    let mut libraries = BTreeSet::new();
    for tool in &tools[..8] {
        let name = tool.file_name().unwrap().to_str().unwrap();
        let content = fs::read(tool).unwrap();
        archive
            .file(&format!("bin/{name}"), 0o755, content)
            .unwrap();
        libraries.extend(libraries_of(tool));
    }
    for entry in fs::read_dir(EXTENSIONS).unwrap() {
        libraries.insert(entry.unwrap().path());
    }
    let mut folders = BTreeSet::new();
    for library in &libraries {
        let above: Vec<&Path> = library.ancestors().skip(1).collect();
        for parent in above.into_iter().rev() {
            let name = parent.to_str().unwrap().trim_start_matches('/');
            if !name.is_empty() && folders.insert(name.to_owned()) {
                archive.directory(name, 0o755).unwrap();
            }
        }
        let name = library.to_str().unwrap().trim_start_matches('/');
        archive
            .file(name, 0o755, fs::read(library).unwrap())
            .unwrap();
    }
    for (name, content) in images(&tools[0], folder) {
        archive
            .file(&format!("images/{name}"), 0o644, content)
            .unwrap();
    }
    archive.into_bytes()
}

/// What the loader of this machine would load for a program.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// An image of each file system, with one program in it.
fn images(busybox: &Path, folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let content = folder.join("content");
    fs::create_dir(&content).unwrap();
    fs::copy(busybox, content.join("busybox")).unwrap();
    let content = content.to_str().unwrap();
    let made = |name: &'static str, command: &[&str]| {
        let image = folder.join(name);
        let program = find(MAKERS.into_iter().find(|one| *one == command[0]).unwrap()).unwrap();
        let arguments = command[1..].iter().map(|word| match *word {
            "IMAGE" => image.to_str().unwrap(),
            "CONTENT" => content,
            word => word,
        });
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        (name, fs::read(&image).unwrap())
    };
    let squash = ["mksquashfs", "CONTENT", "IMAGE", "-noappend", "-comp"];
    let squash = |kind| [&squash[..], &[kind]].concat();
    vec![
        made(
            "ext4",
            &[
                "mke2fs",
                "-q",
                "-t",
                "ext4",
                "-O",
                "quota,project",
                "-d",
                "CONTENT",
                "IMAGE",
                "8M",
            ],
        ),
        made("erofs", &["mkfs.erofs", "IMAGE", "CONTENT"]),
        made("erofs.lz4", &["mkfs.erofs", "-zlz4", "IMAGE", "CONTENT"]),
        made("squashfs", &squash("gzip")),
        made("squashfs.zstd", &squash("zstd")),
        made("squashfs.xz", &squash("xz")),
        made("squashfs.lz4", &squash("lz4")),
    ]
}

/// What the guest says before it ends.
fn boot(qemu: &Path, initrd: &Path) -> String {
    let kernel = Command::new(env!("CARGO_BIN_EXE_kata-cc-image"))
        .arg("kernel")
        .output()
        .unwrap();
    assert!(kernel.status.success(), "{kernel:?}");
    let kernel = String::from_utf8(kernel.stdout).unwrap();
    let kernel = Path::new(kernel.trim()).join("vmlinuz");
    let mut qemu = Command::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .args(["-machine", "q35,sata=off", "-accel", "tcg", "-cpu", "max"])
        .args(["-smp", "2", "-m", "1024M"])
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=1 rdinit=/features.sh"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut console = qemu.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = console.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).replace('\r', "")
    });
    wait(&mut qemu);
    reader.join().unwrap()
}

fn wait(qemu: &mut Child) {
    let deadline = Instant::now() + TIME_MAX;
    while qemu.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = qemu.kill();
        }
        thread::sleep(Duration::from_millis(100));
    }
}
