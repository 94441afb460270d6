//! `/dev/sev-guest`, for kernels without configfs-tsm.
//!
//! The only unsafe code of the crate: two pointers go to the kernel inside a request
//! (Linux, `include/uapi/linux/sev-guest.h`).
#![expect(
    unsafe_code,
    reason = "the kernel's interface is an ioctl with pointers"
)]

use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd as _,
    path::PathBuf,
    thread,
    time::Duration,
};

use super::source::{Tee, TeeError, TeeKind};
use crate::{
    bytes::{Reader, Truncated},
    field::ReportData,
    obtained::{MAX_CERTIFICATES_LEN, Obtained},
    snp::REPORT_LEN,
};

const DEVICE: &str = "/dev/sev-guest";
const MESSAGE_VERSION: u8 = 1;
const RESPONSE_LEN: usize = 4000;
const PAGE_LEN: usize = 4096;

const HOST_INVALID_LEN: u32 = 1;
const HOST_BUSY: u32 = 2;
const MAX_TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

#[repr(C)]
struct GuestRequest {
    message_version: u8,
    request: u64,
    response: u64,
    firmware_error: u32,
    host_error: u32,
}

#[repr(C)]
struct ExtendedReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
    certificates: u64,
    certificates_len: u32,
}

const _: () = assert!(size_of::<GuestRequest>() == 32);
const _: () = assert!(size_of::<ExtendedReportRequest>() == 112);

nix::ioctl_readwrite!(snp_get_ext_report, b'S', 2, GuestRequest);

/// Reports through the guest device.
#[derive(Debug)]
pub struct SevGuest {
    device: File,
}

impl SevGuest {
    /// Opens the device, if there is one.
    pub fn open() -> Option<Self> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE)
            .ok()?;
        Some(Self { device })
    }

    fn ask(&self, report_data: &ReportData, table: &mut [u8]) -> Result<Answer, TeeError> {
        let mut response = [0_u8; RESPONSE_LEN];
        let mut request = ExtendedReportRequest {
            user_data: report_data.0,
            vmpl: 0,
            reserved: [0; 28],
            certificates: table.as_mut_ptr().expose_provenance() as u64,
            certificates_len: u32::try_from(table.len()).map_err(|_| TeeError::Answer)?,
        };
        let mut envelope = GuestRequest {
            message_version: MESSAGE_VERSION,
            request: (&raw mut request).expose_provenance() as u64,
            response: response.as_mut_ptr().expose_provenance() as u64,
            firmware_error: 0,
            host_error: 0,
        };
        // SAFETY: the kernel reads and writes the envelope, the request and the response
        // at the sizes asserted above (the response at its 4000 bytes), and at most
        // `certificates_len` bytes of the table. All four outlive the call and are not
        // touched by us during it.
        let result = unsafe { snp_get_ext_report(self.device.as_raw_fd(), &raw mut envelope) };
        match (result, envelope.host_error, envelope.firmware_error) {
            (Ok(_), 0, 0) => Ok(Answer::Report(
                report_of(&response).ok_or(TeeError::Answer)?,
            )),
            (_, HOST_INVALID_LEN, _) => Ok(Answer::TableTooSmall(request.certificates_len)),
            (_, HOST_BUSY, _) => Ok(Answer::Busy),
            (Err(errno), 0, 0) => Err(TeeError::File {
                step: "ask",
                path: PathBuf::from(DEVICE),
                source: errno.into(),
            }),
            (_, host, firmware) => Err(TeeError::Refused { firmware, host }),
        }
    }
}

enum Answer {
    Report(Vec<u8>),
    TableTooSmall(u32),
    Busy,
}

impl Tee for SevGuest {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let mut table = vec![0; 4 * PAGE_LEN];
        for _ in 0..MAX_TRIES {
            match self.ask(report_data, &mut table)? {
                Answer::Report(report) => {
                    return Ok(Obtained {
                        report,
                        certificates: table,
                    });
                }
                Answer::TableTooSmall(wanted) => {
                    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                    if wanted <= table.len() || wanted > MAX_CERTIFICATES_LEN {
                        return Err(TeeError::Answer);
                    }
                    table.resize(wanted.next_multiple_of(PAGE_LEN), 0);
                }
                Answer::Busy => thread::sleep(PAUSE),
            }
        }
        Err(TeeError::Busy(MAX_TRIES))
    }
}

/// Status, size and 24 reserved bytes, then the report.
fn report_of(response: &[u8]) -> Option<Vec<u8>> {
    let read = || -> Result<Option<Vec<u8>>, Truncated> {
        let mut reader = Reader::new(response);
        let (status, size) = (reader.u32_le()?, reader.u32_le()?);
        reader.take(24)?;
        let report = reader.take_u32(size)?;
        Ok((status == 0 && report.len() == REPORT_LEN).then(|| report.to_vec()))
    };
    read().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_holds_a_report_after_its_header() {
        let mut response = vec![0; RESPONSE_LEN];
        response[4..8].copy_from_slice(&1184_u32.to_le_bytes());
        response[32] = 5;
        assert_eq!(report_of(&response).unwrap()[0], 5);
        response[0] = 0x16;
        assert!(report_of(&response).is_none());
    }

    #[test]
    fn response_with_another_length_is_none() {
        for size in [0, 1183, 1185, u32::MAX] {
            let mut response = vec![0; RESPONSE_LEN];
            response[4..8].copy_from_slice(&size.to_le_bytes());
            assert!(report_of(&response).is_none(), "{size}");
        }
    }
}
