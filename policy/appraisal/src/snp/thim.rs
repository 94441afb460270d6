//! Certificates as Azure's trusted hardware identity management (THIM) hands them out.
//!
//! It is a cache of the untrusted side: a wrong answer costs availability and nothing else.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::endorsements::{ContainerError, Endorsements};

/// Text is not an answer of THIM.
#[derive(Debug, thiserror::Error)]
pub enum ThimError {
    /// Not the JSON of it.
    #[error("the thim answer is not json of its form")]
    Json(#[from] serde_json::Error),
    /// `tcbm` is not 16 hexadecimal digits.
    #[error("the thim answer's tcbm is not 16 hexadecimal digits")]
    Tcbm,
    /// The certificates cannot be read.
    #[error("the thim answer's certificates cannot be read")]
    Certificates(#[from] ContainerError),
}

/// Certificates from the trusted hardware identity management of Azure.
#[derive(Clone, Debug)]
pub struct ThimCertificates {
    /// The certificates.
    pub endorsements: Endorsements,
    /// The TCB that the VCEK is for; after a firmware update it may not be the
    /// reported one.
    pub tcb: [u8; 8],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thim {
    vcek_cert: String,
    tcbm: String,
    certificate_chain: String,
}

impl ThimCertificates {
    /// Whether bytes are meant to be an answer: JSON, or the base64 of it. Certificates
    /// begin otherwise.
    pub fn is_one(bytes: &[u8]) -> bool {
        json_text(bytes).is_some()
    }

    /// Reads the body of `GET …/metadata/THIM/amd/certification`, as it came or in base64 as
    /// the file `host-amd-cert-base64` of a container group has it.
    ///
    /// # Errors
    ///
    /// [`ThimError`] names what is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, ThimError> {
        let text = json_text(body).unwrap_or(Cow::Borrowed(body));
        let thim: Thim = agent_documents::parse_json(&text)?;
        let mut tcb = [0; 8];
        hex::decode_to_slice(&thim.tcbm, &mut tcb).map_err(|_| ThimError::Tcbm)?;
        // Written as a big-endian number; the report's bytes run the other way.
        tcb.reverse();
        let mut endorsements = Endorsements::parse(thim.vcek_cert.as_bytes())?;
        endorsements.add(thim.certificate_chain.as_bytes())?;
        Ok(Self { endorsements, tcb })
    }
}

fn json_text(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let is_object = |text: &[u8]| text.trim_ascii_start().starts_with(b"{");
    if is_object(bytes) {
        return Some(Cow::Borrowed(bytes));
    }
    let decoded = STANDARD.decode(bytes.trim_ascii()).ok()?;
    is_object(&decoded).then_some(Cow::Owned(decoded))
}
