//! A software TPM of the tests' own, and what its owner does with it.
//!
//! Debian's `swtpm` serves the commands over a Unix socket: one client at a time, one
//! write a command, one read a response, as the kernel's device does.

use std::{
    env,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// `TPM2_*` codes that only the owner uses here.
const EVICT_CONTROL: u32 = 0x120;
const CREATE_PRIMARY: u32 = 0x131;
const NV_DEFINE_SPACE: u32 = 0x12A;
const NV_WRITE: u32 = 0x137;
const OWNER: u32 = 0x4000_0001;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Swtpm {
    child: Child,
    folder: TempDir,
    program: PathBuf,
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.end();
    }
}

impl Swtpm {
    /// Starts one, or says why the test is skipped.
    pub fn start() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let Some(program) = env::split_paths(&path)
            .map(|folder| folder.join("swtpm"))
            .find(|program| program.exists())
        else {
            eprintln!("skipped: there is no swtpm; hack/setup installs it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let server = format!("type=unixio,path={}", socket(folder.path()).display());
        let options = [
            "--flags",
            "not-need-init,startup-clear",
            "--server",
            &server,
        ];
        let child = serve(&program, folder.path(), &options);
        Some(Self {
            child,
            folder,
            program,
        })
    }

    /// Starts it anew as QEMU needs it, with what it kept, and a log of all commands.
    pub fn serve_qemu(&mut self) {
        self.end();
        let control = format!("type=unixio,path={}", self.control().display());
        let log = format!("file={},level=20", self.log().display());
        let options = ["--ctrl", &control, "--log", &log];
        self.child = serve(&self.program, self.folder.path(), &options);
        let deadline = Instant::now() + PATIENCE;
        while !self.control().exists() {
            assert!(Instant::now() < deadline, "swtpm makes no control socket");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// All commands and responses, in hexadecimal.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Takes it away from whoever uses it.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The one client's connection.
    pub fn connect(&self) -> UnixStream {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket(self.folder.path())) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "swtpm: {error}"),
            }
            // It makes its socket when it is ready, and tells nobody.
            thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

fn serve(program: &Path, folder: &Path, options: &[&str]) -> Child {
    let state = format!("dir={}", folder.display());
    Command::new(program)
        .args(["socket", "--tpm2", "--tpmstate", &state])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

/// Sends what the owner wants, with the empty password for each handle that needs one,
/// and gives what follows the header of the response.
fn own(stream: &mut UnixStream, code: u32, handles: &[u32], parameters: &[u8]) -> Vec<u8> {
    let handles: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    let session = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    let size = u32::try_from(10 + handles.len() + session.len() + parameters.len()).unwrap();
    let frame = [
        &[0x80, 0x02][..],
        &size.to_be_bytes(),
        &code.to_be_bytes(),
        &handles,
        &session,
        parameters,
    ]
    .concat();
    stream.write_all(&frame).unwrap();
    let mut response = vec![0; 4096];
    let length = stream.read(&mut response).unwrap();
    response.truncate(length);
    assert_eq!(
        response[6..10],
        [0; 4],
        "{code:#x} {}",
        hex::encode(&response)
    );
    response.split_off(10)
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Makes an RSA key that signs what the TPM says, at a persistent handle; gives its
/// modulus. The exponent is 65537.
pub fn make_attestation_key(stream: &mut UnixStream, at: u32) -> Vec<u8> {
    // Fixed to the TPM and parent, made by it, used with its password, restricted, signs.
    let attributes: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 18;
    let public = [
        &[0, 1, 0, 0x0B][..],
        &attributes.to_be_bytes(),
        &[0, 0],
        // No symmetric algorithm, RSASSA with SHA-256, 2048 bits, the usual exponent.
        &[0, 0x10, 0, 0x14, 0, 0x0B, 8, 0, 0, 0, 0, 0],
        &[0, 0],
    ]
    .concat();
    let parameters = [sized(&[0; 4]), sized(&public), vec![0, 0], vec![0; 4]].concat();
    let made = own(stream, CREATE_PRIMARY, &[OWNER], &parameters);
    let handle = u32::from_be_bytes(made[..4].try_into().unwrap());
    let public_len = usize::from(u16::from_be_bytes(made[8..10].try_into().unwrap()));
    let modulus = made[10 + public_len - 256..10 + public_len].to_vec();
    let mut evicted = vec![];
    evicted.extend(at.to_be_bytes());
    own(stream, EVICT_CONTROL, &[OWNER, handle], &evicted);
    modulus
}

/// Makes an NV index, for the owner to read and write.
pub fn define(stream: &mut UnixStream, index: u32, size: usize) {
    let public = [
        &index.to_be_bytes()[..],
        &[0, 0x0B],
        &(1_u32 << 1 | 1 << 17).to_be_bytes(),
        &[0, 0],
        &u16::try_from(size).unwrap().to_be_bytes(),
    ]
    .concat();
    let parameters = [sized(&[]), sized(&public)].concat();
    own(stream, NV_DEFINE_SPACE, &[OWNER], &parameters);
}

/// Fills an NV index.
pub fn fill(stream: &mut UnixStream, index: u32, content: &[u8]) {
    for (number, part) in content.chunks(512).enumerate() {
        let offset = u16::try_from(number * 512).unwrap();
        let parameters = [&sized(part)[..], &offset.to_be_bytes()].concat();
        own(stream, NV_WRITE, &[OWNER, index], &parameters);
    }
}
