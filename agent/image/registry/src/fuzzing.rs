//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use crate::{
    config::ConfigFile,
    document::Document,
    fetch::{auth, dns},
};

/// Parses a manifest or index.
pub fn manifest(bytes: &[u8]) {
    let _ = Document::parse(bytes, None);
}

/// Parses an image configuration.
pub fn config(bytes: &[u8]) {
    let _ = ConfigFile::parse(bytes);
}

/// Reads a name server's answer.
pub fn dns(bytes: &[u8]) {
    let query = dns::query(7, "registry.example", dns::Family::V4).expect("the name is one");
    let _ = dns::answer(&query, bytes);
    // Past the echoed question, where most of an answer is.
    let _ = dns::answer(
        &query,
        &[
            &query[..2],
            &[0x81, 0x80, 0, 1],
            bytes.get(..2).unwrap_or(&[0, 1]),
            &query[8..],
            bytes,
        ]
        .concat(),
    );
}

/// Reads a `WWW-Authenticate` header.
pub fn challenge(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = auth::challenge(std::iter::once(text));
    }
}
