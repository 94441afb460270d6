//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use crate::{config::ConfigFile, document::Document, fetch};

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
    fetch::fuzz_dns(bytes);
}

/// Reads a `WWW-Authenticate` header.
pub fn challenge(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        fetch::fuzz_challenge(text);
    }
}
