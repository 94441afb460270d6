//! The certificate authorities that the guest trusts when it reaches registries and key brokers.
//!
//! The build machine's bundle and the owner's own files are merged into one list that depends
//! on the certificates only: comments are dropped, duplicates removed, and the blocks sorted,
//! so that two distributions' bundles with the same certificates give the same guest.

use std::collections::BTreeSet;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Certificates in PEM form, each once, in a fixed order.
#[derive(Default)]
pub struct Certificates(BTreeSet<String>);

/// Why a PEM file cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PemError {
    /// No certificate was found.
    #[error("holds no PEM certificate")]
    Empty,
    /// A certificate does not end.
    #[error("holds a PEM certificate that does not end")]
    Unterminated,
    /// Something other than base64 text stands in a certificate.
    #[error("holds a PEM certificate with characters that are not base64")]
    NotBase64,
}

impl Certificates {
    /// Adds every certificate of a PEM file.
    ///
    /// # Errors
    ///
    /// When there is none, or one is broken.
    pub fn add_pem(&mut self, text: &[u8]) -> Result<(), PemError> {
        let text = String::from_utf8_lossy(text);
        let mut found = false;
        for after in text.split(BEGIN).skip(1) {
            let (body, _) = after.split_once(END).ok_or(PemError::Unterminated)?;
            let body: String = body.split_whitespace().collect();
            let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
            if body.is_empty() || !body.chars().all(base64) {
                return Err(PemError::NotBase64);
            }
            self.0.insert(body);
            found = true;
        }
        if found { Ok(()) } else { Err(PemError::Empty) }
    }

    /// How many certificates there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// One PEM file with all of them.
    #[must_use]
    pub fn to_pem(&self) -> Vec<u8> {
        let mut out = String::new();
        for body in &self.0 {
            out.push_str(BEGIN);
            for (position, c) in body.chars().enumerate() {
                if position % 64 == 0 {
                    out.push('\n');
                }
                out.push(c);
            }
            out.push('\n');
            out.push_str(END);
            out.push('\n');
        }
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const B: &str = "-----BEGIN CERTIFICATE-----\r\nBB\r\nBB\r\n-----END CERTIFICATE-----\r\n";

    #[test]
    fn order_comments_and_duplicates_do_not_show() {
        let mut one = Certificates::default();
        one.add_pem(format!("# root\n{A}{B}").as_bytes()).unwrap();
        let mut other = Certificates::default();
        other.add_pem(B.as_bytes()).unwrap();
        other.add_pem(format!("{A}{A}").as_bytes()).unwrap();
        assert_eq!(one.to_pem(), other.to_pem());
        assert_eq!(one.count(), 2);
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut one = Certificates::default();
        let long = format!("{BEGIN}{}{END}", "C".repeat(200));
        one.add_pem(long.as_bytes()).unwrap();
        let mut again = Certificates::default();
        again.add_pem(&one.to_pem()).unwrap();
        assert_eq!(one.to_pem(), again.to_pem());
    }

    #[test]
    fn files_without_whole_certificates_are_refused() {
        let cases = [
            ("no certificate here", PemError::Empty),
            ("-----BEGIN CERTIFICATE-----\nAAAA", PemError::Unterminated),
            (
                "-----BEGIN CERTIFICATE-----\nA!\n-----END CERTIFICATE-----",
                PemError::NotBase64,
            ),
        ];
        for (text, error) in cases {
            let refused = Certificates::default().add_pem(text.as_bytes());
            assert_eq!(refused, Err(error));
        }
    }
}
