//! The host's ACPI tables against the guest's memory: what succeeds with Debian's kernel is
//! refused by ours.
//!
//! The tables are not measured, so any host can add them. The guest's first program is not
//! there, so that its kernel ends when it has done all that the tables ask for; the emulator
//! then stands still, and its memory is looked at from outside.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::tools::{Tools, run};

const TIME_MAX: Duration = Duration::from_secs(120);
/// What lies in the guest's memory before it starts.
const FOUND: u32 = 0x66b9_e213;
/// What the attacks write.
const WRITTEN: u32 = 0x6461_6221;
/// Where; the tables have the same addresses.
const USABLE: u64 = 0x1000_0000;
const RESERVED: u64 = 0x1fff_8000;
const OF_ERST: u64 = 0x1fff_9000;
const OF_RESET: u64 = 0x1fff_a000;
const RESET_VALUE: u8 = 0x5a;

/// What the tables could do.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    read_usable: bool,
    wrote_usable: bool,
    wrote_reserved: bool,
    read_reserved: bool,
    erst_wrote: bool,
    reset_wrote: bool,
}

const ALL: Done = Done {
    read_usable: true,
    wrote_usable: true,
    wrote_reserved: true,
    read_reserved: true,
    erst_wrote: true,
    reset_wrote: true,
};

const NOTHING: Done = Done {
    read_usable: false,
    wrote_usable: false,
    wrote_reserved: false,
    read_reserved: false,
    erst_wrote: false,
    reset_wrote: false,
};

/// Attacks our kernel, and Debian's, which shows that the attacks are some.
pub(crate) fn attack_each(tools: &Tools, image: &Path, folder: &Path) {
    let folder = folder.join("acpi");
    fs::create_dir_all(&folder).unwrap();
    let tables = Tables::make(tools, &folder);
    let stock = folder.join("stock");
    let agent = env!("CARGO_BIN_EXE_kata-agent");
    run(Command::new(&tools.image_builder)
        .args(["build", "--stock-kernel", "--agent", agent, "--output"])
        .arg(&stock));
    let (done, _) = attack(tools, &stock.join("default"), &folder, &tables);
    assert_eq!(done, ALL, "Debian's kernel");
    let (done, consoles) = attack(tools, image, &folder, &tables);
    assert_eq!(done, NOTHING, "{consoles}");
    for refusal in [
        "read of memory 0x10000000",
        "write to memory 0x10000004",
        "write to memory 0x1fff8000",
        "read of memory 0x1fff8000",
        "write to memory 0x1fffa000",
    ] {
        let refusal = format!("guard: refused: {refusal}");
        assert!(consoles.contains(&refusal), "{refusal}: {consoles}");
    }
}

/// Starts a kernel twice: a broken FADT would hide what the other tables do.
fn attack(tools: &Tools, image: &Path, folder: &Path, tables: &Tables) -> (Done, String) {
    let mut guest = Guest::start(tools, image, folder, &[&tables.ssdt, &tables.erst]);
    guest.wait();
    let told = guest.told();
    assert!(told.contains("<A=0000002a>"), "the code ran: {told}");
    assert!(told.contains("<Z=0000002a>"), "to its end: {told}");
    let mut done = Done {
        read_usable: told.contains(&format!("<B={FOUND:08x}>")),
        wrote_usable: guest.word(USABLE + 4) == WRITTEN,
        wrote_reserved: guest.word(RESERVED) == WRITTEN,
        read_reserved: told.contains(&format!("<E={WRITTEN:08x}>")),
        erst_wrote: guest.word(OF_ERST) == WRITTEN,
        reset_wrote: false,
    };
    assert_eq!(guest.word(USABLE), FOUND, "nobody else wrote there");
    let mut consoles = guest.console();
    drop(guest);
    let mut guest = Guest::start(tools, image, folder, &[&tables.fadt]);
    guest.wait();
    done.reset_wrote = guest.word(OF_RESET) == u32::from(RESET_VALUE);
    consoles += &guest.console();
    (done, consoles)
}

struct Tables {
    ssdt: PathBuf,
    erst: PathBuf,
    fadt: PathBuf,
}

impl Tables {
    fn make(tools: &Tools, folder: &Path) -> Self {
        let source = folder.join("acpi.asl");
        fs::write(&source, include_str!("acpi.asl")).unwrap();
        run(Command::new(&tools.iasl).arg(&source).current_dir(folder));
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        write("found", &FOUND.to_le_bytes());
        Self {
            ssdt: folder.join("acpi.aml"),
            erst: write("erst", &erst()),
            fadt: write("fadt", &fadt()),
        }
    }
}

/// A table (ACPI 6.5, 5.2.6): header, then what is in it.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(36 + body.len()).unwrap();
    let mut table = signature.to_vec();
    table.extend(length.to_le_bytes());
    table.extend([revision, 0]);
    table.extend(b"ATTACKMEMORY\0\0");
    table.extend(1_u32.to_le_bytes());
    table.extend(b"TEST");
    table.extend(1_u32.to_le_bytes());
    table.extend(body);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// A generic address structure in memory (ACPI 6.5, 5.2.3.2).
fn in_memory(address: u64, bits: u8, access: u8) -> Vec<u8> {
    [&[0, bits, 0, access][..], &address.to_le_bytes()].concat()
}

/// An error record table (ACPI 6.5, 18.5.1) with one instruction: for the action
/// `GET_ERROR_LOG_ADDRESS_RANGE`, which the kernel takes when it starts, write a value.
fn erst() -> Vec<u8> {
    let mut body = [12_u32, 0, 1].map(u32::to_le_bytes).concat();
    body.extend([13, 3, 0, 0]);
    body.extend(in_memory(OF_ERST, 32, 3));
    body.extend(u64::from(WRITTEN).to_le_bytes());
    body.extend(u64::from(u32::MAX).to_le_bytes());
    table(b"ERST", 1, &body)
}

/// A fixed table (ACPI 6.5, 5.2.9) like that of q35, but for its reset register.
fn fadt() -> Vec<u8> {
    let mut body = [0; 244 - 36];
    let mut put = |offset: usize, bytes: &[u8]| {
        body[offset - 36..offset - 36 + bytes.len()].copy_from_slice(bytes);
    };
    put(46, &[9, 0]);
    for (offset, port) in [(56, 0x600_u32), (64, 0x604), (76, 0x608), (80, 0x620)] {
        put(offset, &port.to_le_bytes());
    }
    put(88, &[4, 2, 0, 4, 16]);
    put(112, &(1_u32 << 10).to_le_bytes());
    put(116, &in_memory(OF_RESET, 8, 1));
    put(128, &[RESET_VALUE]);
    table(b"FACP", 3, &body)
}

struct Guest {
    qemu: Child,
    folder: PathBuf,
    monitor: BufReader<UnixStream>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Guest {
    fn start(tools: &Tools, image: &Path, folder: &Path, tables: &[&PathBuf]) -> Self {
        let manifest = fs::read(image.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let cmdline = manifest["cmdline"].as_str().unwrap();
        let more = "nokaslr rdinit=/none reboot=a";
        let socket = folder.join("monitor");
        let _ = fs::remove_file(&socket);
        let path = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new(&tools.qemu);
        for table in tables {
            let file = format!("file={}", table.display());
            command.args(["-acpitable", &file]);
        }
        let loaded = format!(
            "loader,file={},addr={USABLE:#x},force-raw=on",
            path("found")
        );
        command
            .args(["-nodefaults", "-no-user-config", "-nographic"])
            .args(["-no-reboot", "-no-shutdown"])
            .args(["-machine", "q35,sata=off", "-accel", "tcg", "-cpu", "max"])
            .args(["-smp", "1", "-m", "512M", "-device", &loaded])
            .args(["-chardev", &format!("file,id=d,path={}", path("debug"))])
            .args(["-device", "isa-debugcon,iobase=0x402,chardev=d"])
            .args(["-chardev", &format!("file,id=c,path={}", path("console"))])
            .args(["-serial", "chardev:c"])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", socket.display()),
            ])
            .arg("-kernel")
            .arg(image.join("vmlinuz"))
            .arg("-initrd")
            .arg(image.join("initrd.img"))
            .args(["-append", &format!("{cmdline} {more}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let qemu = command.spawn().unwrap();
        let deadline = Instant::now() + TIME_MAX;
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(TIME_MAX)).unwrap();
        let mut guest = Self {
            qemu,
            folder: folder.to_owned(),
            monitor: BufReader::new(stream),
        };
        guest.monitor.read_line(&mut String::new()).unwrap();
        guest.ask(&json!({"execute": "qmp_capabilities"}));
        guest
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.monitor.get_mut(), "{question}").unwrap();
        loop {
            let mut line = String::new();
            self.monitor.read_line(&mut line).unwrap();
            let mut answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer.get("error"), None, "{question}");
            if let Some(answer) = answer.get_mut("return") {
                return answer.take();
            }
        }
    }

    /// Until the guest has ended.
    fn wait(&mut self) {
        let deadline = Instant::now() + TIME_MAX;
        while self.ask(&json!({"execute": "query-status"}))["status"] != "shutdown" {
            assert!(Instant::now() < deadline, "{}", self.console());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A word of the guest's memory, as the host sees it.
    fn word(&mut self, address: u64) -> u32 {
        let file = self.folder.join("word");
        let arguments = json!({"val": address, "size": 4, "filename": file});
        self.ask(&json!({"execute": "pmemsave", "arguments": arguments}));
        u32::from_le_bytes(fs::read(file).unwrap().try_into().unwrap())
    }

    fn told(&self) -> String {
        let bytes = fs::read(self.folder.join("debug")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.folder.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
