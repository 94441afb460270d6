//! Bytes as text between `-----BEGIN …-----` and `-----END …-----`.
//!
//! OpenPGP's armor (RFC 9580, section 6.2) and PEM (RFC 7468) differ in headers and
//! checksum only. The checksum is skipped, as RFC 9580 says: it protects nothing that
//! the keys' own signatures do not.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The bytes of the only block of this name; `None` if there is none, several, or a broken one.
///
/// Text around the block is allowed, as files often say what they hold.
pub(crate) fn body(text: &str, name: &str) -> Option<Vec<u8>> {
    let (begin, end) = (
        format!("-----BEGIN {name}-----"),
        format!("-----END {name}-----"),
    );
    let mut lines = text.lines().map(str::trim_end);
    lines.find(|line| *line == begin)?;
    let mut encoded = String::new();
    let mut in_headers = true;
    loop {
        let line = lines.next()?;
        if line == end {
            break;
        }
        if in_headers && (line.is_empty() || line.contains(": ")) {
            continue;
        }
        in_headers = false;
        let is_checksum = line.len() == 5 && line.starts_with('=');
        if !is_checksum {
            encoded.push_str(line);
        }
    }
    if lines.any(|line| line == begin) {
        return None;
    }
    STANDARD.decode(encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_with_or_without_headers_and_checksum() {
        for text in [
            "-----BEGIN X-----\nYWJj\n-----END X-----\n",
            "told\r\n-----BEGIN X-----\r\nComment: c\r\n\r\nYW\r\nJj\r\n=abcd\r\n-----END X-----",
        ] {
            assert_eq!(body(text, "X").unwrap(), b"abc");
        }
    }

    #[test]
    fn what_is_not_one_whole_block_is_nothing() {
        let one = "-----BEGIN X-----\nYWJj\n-----END X-----\n";
        for text in [
            "",
            "YWJj",
            "-----BEGIN X-----\nYWJj\n",
            &one.replace("YW", "?"),
            &one.repeat(2),
        ] {
            assert!(body(text, "X").is_none(), "{text}");
        }
        assert!(body(one, "Y").is_none());
    }
}
