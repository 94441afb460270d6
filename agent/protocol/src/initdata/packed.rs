//! The document on its way: one gzip member (RFC 1952), and base64 of that.
//!
//! A second member, or anything else behind the first, would be bytes that no digest
//! covers, so both are refused. Inflating stops at the document's limit.

use std::io::{Read as _, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use thiserror::Error;

use super::{DOCUMENT_BYTES_MAX, Initdata, PACKED_BYTES_MAX, document::DocumentError};

/// What a gzip member starts with.
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why bytes do not hold an initdata document.
#[derive(Debug, Error)]
pub enum PackedError {
    /// The annotation is not base64.
    #[error("the initdata annotation is not base64")]
    Base64,
    /// More bytes than fit on a disk.
    #[error("packed initdata is larger than {PACKED_BYTES_MAX} bytes")]
    TooLarge,
    /// Not gzip, cut off or damaged.
    #[error("initdata cannot be inflated: it is not one intact gzip member")]
    Gzip(#[source] std::io::Error),
    /// It inflates to more than any document may have.
    #[error("initdata inflates to more than {DOCUMENT_BYTES_MAX} bytes")]
    Inflated,
    /// Something follows the member.
    #[error("{0} bytes follow the gzip member of initdata")]
    Tail(usize),
    /// The document breaks a rule.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// Packs a document; the same document is packed to the same bytes.
///
/// # Errors
///
/// [`PackedError::TooLarge`] if it would not fit on a disk.
pub fn pack(document: &Initdata) -> Result<Vec<u8>, PackedError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder
        .write_all(document.text().as_bytes())
        .and_then(|()| encoder.finish())
        .map_err(PackedError::Gzip)?;
    if packed.len() > PACKED_BYTES_MAX {
        return Err(PackedError::TooLarge);
    }
    Ok(packed)
}

/// Reads a packed document.
///
/// # Errors
///
/// [`PackedError`] names what is wrong with it.
pub fn unpack(packed: &[u8]) -> Result<Initdata, PackedError> {
    if packed.len() > PACKED_BYTES_MAX {
        return Err(PackedError::TooLarge);
    }
    let limit = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX);
    let mut inflating = GzDecoder::new(packed).take(limit.saturating_add(1));
    let mut document = Vec::new();
    inflating
        .read_to_end(&mut document)
        .map_err(PackedError::Gzip)?;
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(PackedError::Inflated);
    }
    let behind = inflating.into_inner().into_inner();
    if !behind.is_empty() {
        return Err(PackedError::Tail(behind.len()));
    }
    Ok(Initdata::parse(&document)?)
}

/// The value of the pod's annotation.
#[must_use]
pub fn to_annotation(packed: &[u8]) -> String {
    STANDARD.encode(packed)
}

/// The packed document in the pod's annotation; white space around it is left out.
///
/// # Errors
///
/// [`PackedError`] if it is too large or not base64.
pub fn from_annotation(value: &str) -> Result<Vec<u8>, PackedError> {
    let value = value.trim_ascii();
    if value.len() > PACKED_BYTES_MAX.div_ceil(3) * 4 {
        return Err(PackedError::TooLarge);
    }
    STANDARD.decode(value).map_err(|_| PackedError::Base64)
}
