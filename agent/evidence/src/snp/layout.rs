//! The size of a report, and the two fields that a guest reads of its own
//! (AMD 56860, `ATTESTATION_REPORT`).

use crate::{
    bytes::{Reader, Truncated},
    field::{HostData, LaunchMeasurement, ReportData},
};

/// Size of a report, in bytes.
pub const REPORT_LEN: usize = 0x4A0;
/// Offset of the report data; the launch measurement and the host data follow.
const REPORT_DATA_OFFSET: usize = 0x50;

const _: () = assert!(REPORT_DATA_OFFSET + ReportData::SIZE + LaunchMeasurement::SIZE == 0xC0);

/// Bytes are not as many as a report has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an snp report has {REPORT_LEN} bytes, not {0}")]
pub struct ReportLengthError(pub usize);

/// Report data and host data of a report.
///
/// # Errors
///
/// [`ReportLengthError`] if there are more or fewer bytes than a report has.
pub(super) fn bound_fields(report: &[u8]) -> Result<(ReportData, HostData), ReportLengthError> {
    let wrong_length = |_: Truncated| ReportLengthError(report.len());
    if report.len() != REPORT_LEN {
        return Err(ReportLengthError(report.len()));
    }
    let mut reader = Reader::new(report);
    reader.take(REPORT_DATA_OFFSET).map_err(wrong_length)?;
    let report_data = ReportData(reader.array().map_err(wrong_length)?);
    reader.take(LaunchMeasurement::SIZE).map_err(wrong_length)?;
    let host_data = HostData(reader.array().map_err(wrong_length)?);
    Ok((report_data, host_data))
}
