//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use crate::{Addresses, connection, session};

/// What a broker says, or what initdata says of it; the first byte chooses.
pub fn said(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match kind % 4 {
        0 => {
            if let Some(pair) = connection::cookie(&text) {
                // It becomes a header.
                assert!(pair.is_ascii() && !pair.contains(|c: char| c.is_control() || c == ';'));
            }
        }
        1 => {
            if let Some(details) = connection::details(rest) {
                let shown = connection::printable(&details.detail);
                assert!(!shown.contains(char::is_control) && shown.chars().count() <= 300);
            }
        }
        2 => assert!(session::lifetime(&text) <= session::USUAL),
        _ => {
            if let Ok(addresses) = Addresses::parse(&text) {
                let others = addresses.of_repositories.values();
                for address in others.chain(&addresses.default) {
                    let url = address.url.to_ascii_lowercase();
                    assert!(url.starts_with("https://"), "{url}");
                }
            }
        }
    }
}
