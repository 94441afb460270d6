//! Evidence in our own form: the report as received, its certificates, the log.
//!
//! Unlike the decoded form of others it keeps the signed bytes, and it carries the
//! measurement log that the report binds.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{bytes::all_zero, log::MeasurementLog, obtained::Obtained};

/// Longest nonce that evidence can answer, in bytes.
pub const MAX_NONCE_LEN: usize = 1024;

/// The JSON of our own form. All but the name of the TEE is base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedForm {
    /// Name of the TEE in the KBS protocol.
    pub tee: String,
    /// The report as received.
    pub report: String,
    /// Containers of certificates, such as the host's certificate table.
    pub certificates: Vec<String>,
    /// Revocation lists; the guest has none, others may add them.
    #[serde(default)]
    pub revocation_lists: Vec<String>,
    /// The nonce that this answers.
    pub nonce: String,
    /// The measurement log.
    pub log: String,
}

impl LoggedForm {
    /// The text that is sent.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and lists are json")
    }
}

/// Writes our own form of what the hardware gave for
/// [`MeasurementLog::bound_report_data`].
pub fn compose(obtained: &Obtained, nonce: &[u8], log: &MeasurementLog) -> String {
    let table = &obtained.certificates;
    let certificates = if all_zero(table) {
        Vec::new()
    } else {
        vec![STANDARD.encode(table)]
    };
    let form = LoggedForm {
        tee: "snp".to_owned(),
        report: STANDARD.encode(&obtained.report),
        certificates,
        revocation_lists: Vec::new(),
        nonce: STANDARD.encode(nonce),
        log: STANDARD.encode(log.as_bytes()),
    };
    form.to_json()
}
