//! A secure processor that the tests play outside the guest.
//!
//! It is reached through a virtio serial port, so that the guest needs no module, no
//! address and no network for it. What comes back has the format of the real report
//! and is judged by the same code; it is signed under a root of the tests, which no
//! owner trusts. Builds without the feature `simulated-tee` do not have this module.
//!
//! | message | fields, integers little-endian |
//! |---|---|
//! | request | [`HELLO`], sequence u32, report data 64 |
//! | answer | [`HELLO`], sequence u32, firmware error u32, length of report u32, length of certificate table u32, report, certificate table |
//!
//! The host is not trusted: lengths are bounded, waiting has a deadline, and an answer to
//! an earlier request, which came too late for it, is passed over.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    os::{fd::AsFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::source::{Tee, TeeError, TeeKind};
use crate::{
    bytes::Reader,
    field::ReportData,
    obtained::{MAX_CERTIFICATES_LEN, Obtained},
    snp::REPORT_LEN,
};

/// Begins every message. Tests search binaries for it.
const HELLO: [u8; 16] = *b"kata-cc sim-psp1";
/// Name of the port.
const PORT: &str = "org.kata-cc.simulated-psp";
const PORTS: &str = "/sys/class/virtio-ports";
const HEADER_LEN: usize = 16 + 4 * 4;
const DEADLINE: Duration = Duration::from_secs(20);
/// Ports are named some moments after their device was found.
const APPEARANCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Reports through a virtio serial port.
#[derive(Debug)]
pub struct SimulatedTee {
    path: PathBuf,
    port: Mutex<Port>,
}

/// The port, while it is good, and the number of the last request.
#[derive(Debug)]
struct Port {
    file: Option<File>,
    sequence: u32,
}

/// What an answer begins with.
struct Header {
    sequence: u32,
    firmware_error: u32,
    report_len: usize,
    table_len: usize,
}

impl SimulatedTee {
    /// Opens the port, if this machine has one.
    pub fn open() -> Option<Self> {
        let ports = Path::new(PORTS);
        let deadline = Instant::now() + APPEARANCE;
        let device = loop {
            match find(ports) {
                Some(device) => break device,
                None if has_console_device() && Instant::now() < deadline => thread::sleep(PAUSE),
                None => return None,
            }
        };
        Some(Self {
            path: Path::new("/dev").join(device),
            port: Mutex::new(Port {
                file: None,
                sequence: 0,
            }),
        })
    }

    fn file_error(&self, step: &'static str) -> impl FnOnce(io::Error) -> TeeError {
        let path = self.path.clone();
        move |source| TeeError::File { step, path, source }
    }

    fn ask(&self, port: &mut Port, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let deadline = Instant::now() + DEADLINE;
        port.sequence = port.sequence.wrapping_add(1);
        // Taken: unless the exchange ends well, the next one starts with a fresh file, which
        // has none of this one's bytes.
        let mut file = match port.file.take() {
            Some(file) => file,
            None => open(&self.path).map_err(self.file_error("open"))?,
        };
        let mut request = HELLO.to_vec();
        request.extend(port.sequence.to_le_bytes());
        request.extend(report_data.0);
        write_all(&mut file, &request, deadline).map_err(|error| self.ended("write", error))?;
        let mut read = |bytes: &mut [u8]| {
            read_exact(&mut file, bytes, deadline).map_err(|error| self.ended("read", error))
        };
        let answer = read_answer(&mut read, port.sequence)?;
        port.file = Some(file);
        Ok(answer)
    }

    fn ended(&self, step: &'static str, error: io::Error) -> TeeError {
        if error.kind() == io::ErrorKind::TimedOut {
            return TeeError::Silent(DEADLINE);
        }
        self.file_error(step)(error)
    }
}

impl Tee for SimulatedTee {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        self.ask(&mut port, report_data)
    }
}

/// Reads until the answer to request `sequence` has come.
fn read_answer(
    read: &mut dyn FnMut(&mut [u8]) -> Result<(), TeeError>,
    sequence: u32,
) -> Result<Obtained, TeeError> {
    loop {
        let mut header = [0; HEADER_LEN];
        read(&mut header)?;
        let header = Header::parse(&header).ok_or(TeeError::Answer)?;
        let mut report = vec![0; header.report_len];
        read(&mut report)?;
        let mut certificates = vec![0; header.table_len];
        read(&mut certificates)?;
        match header {
            header if header.sequence != sequence => {}
            Header {
                firmware_error: 0, ..
            } if header.report_len == REPORT_LEN => {
                return Ok(Obtained {
                    report,
                    certificates,
                });
            }
            Header {
                firmware_error: 0, ..
            } => return Err(TeeError::Answer),
            Header {
                firmware_error: firmware,
                ..
            } => return Err(TeeError::Refused { firmware, host: 0 }),
        }
    }
}

impl Header {
    fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array::<16>().ok()? != HELLO {
            return None;
        }
        let sequence = reader.u32_le().ok()?;
        let firmware_error = reader.u32_le().ok()?;
        let report_len = usize::try_from(reader.u32_le().ok()?).ok()?;
        let table_len = usize::try_from(reader.u32_le().ok()?).ok()?;
        (report_len <= REPORT_LEN && table_len <= MAX_CERTIFICATES_LEN).then_some(Self {
            sequence,
            firmware_error,
            report_len,
            table_len,
        })
    }
}

/// The device node of the port with our name.
fn find(ports: &Path) -> Option<std::ffi::OsString> {
    let entries = fs::read_dir(ports).ok()?;
    let is_ours = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == PORT)
    };
    Some(entries.flatten().find(is_ours)?.file_name())
}

fn has_console_device() -> bool {
    let devices = fs::read_dir("/sys/bus/virtio/drivers/virtio_console");
    devices.is_ok_and(|mut devices| {
        devices.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("virtio"))
        })
    })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
}

fn write_all(file: &mut File, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) => wait(file, PollFlags::POLLOUT, error, deadline)?,
        }
    }
    Ok(())
}

fn read_exact(file: &mut File, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = bytes.get_mut(count..).unwrap_or_default(),
            Err(error) => wait(file, PollFlags::POLLIN, error, deadline)?,
        }
    }
    Ok(())
}

/// Waits after an attempt that would have blocked; any other error is passed on.
fn wait(file: &impl AsFd, until: PollFlags, error: io::Error, deadline: Instant) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => return Ok(()),
        io::ErrorKind::WouldBlock => {}
        _ => return Err(error),
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(file.as_fd(), until)], timeout) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sequence: u32, error: u32, report: usize, table: usize) -> Vec<u8> {
        let mut bytes = HELLO.to_vec();
        for field in [sequence, error, report as u32, table as u32] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(vec![sequence as u8; report.min(REPORT_LEN)]);
        bytes.extend(vec![0x7A; table.min(64)]);
        bytes
    }

    fn judged(mut bytes: &[u8], sequence: u32) -> Result<Obtained, TeeError> {
        let mut read = |to: &mut [u8]| bytes.read_exact(to).map_err(|_| TeeError::Answer);
        read_answer(&mut read, sequence)
    }

    #[test]
    fn the_answer_to_this_request_is_taken_and_an_earlier_one_passed_over() {
        let both = [answer(6, 0, REPORT_LEN, 3), answer(7, 0, REPORT_LEN, 4)].concat();
        let obtained = judged(&both, 7).unwrap();
        assert_eq!(obtained.report, [7; REPORT_LEN]);
        assert_eq!(obtained.certificates, [0x7A; 4]);
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_allocated() {
        for (report, table) in [
            (REPORT_LEN + 1, 0),
            (REPORT_LEN - 1, 0),
            (REPORT_LEN, MAX_CERTIFICATES_LEN + 1),
            (u32::MAX as usize, u32::MAX as usize),
        ] {
            let refused = judged(&answer(1, 0, report, table), 1).unwrap_err();
            assert!(matches!(refused, TeeError::Answer), "{report} {table}");
        }
    }

    #[test]
    fn a_refusal_keeps_the_firmwares_error() {
        let refused = judged(&answer(1, 0x0B, 0, 0), 1).unwrap_err();
        assert!(matches!(refused, TeeError::Refused { firmware: 0x0B, .. }));
    }

    #[test]
    fn something_else_than_an_answer_is_refused() {
        let mut other = answer(1, 0, REPORT_LEN, 0);
        other[0] ^= 1;
        assert!(matches!(judged(&other, 1), Err(TeeError::Answer)));
    }

    #[test]
    fn a_port_is_found_by_its_name() {
        let ports = tempfile::tempdir().unwrap();
        for (device, name) in [
            ("vport0p1", "other\n"),
            ("vport0p2", "org.kata-cc.simulated-psp\n"),
        ] {
            fs::create_dir(ports.path().join(device)).unwrap();
            fs::write(ports.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(find(ports.path()).unwrap(), "vport0p2");
        assert_eq!(find(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_silent_host_ends_the_wait_at_the_deadline() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut file = File::from(std::os::fd::OwnedFd::from(ours));
        let deadline = Instant::now() + Duration::from_millis(30);
        let error = read_exact(&mut file, &mut [0; 1], deadline).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
