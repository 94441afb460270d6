//! The one block of a PEM file that matters (RFC 7468), of private and of public keys.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
/// `openssl ecparam -genkey` puts the curve's name into a block before the key's.
const PARAMETERS: &str = "EC PARAMETERS";

/// What stands between two lines of dashes.
pub struct Block<'a> {
    /// What it says that it is.
    pub label: &'a str,
    body: &'a str,
}

/// Whether these bytes mean to be PEM.
#[must_use]
pub fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.contains(BEGIN).then_some(text)
}

impl<'a> Block<'a> {
    /// The only block of a text, but for an elliptic curve's parameters.
    #[must_use]
    pub fn only(text: &'a str) -> Option<Self> {
        let mut blocks = text.split(BEGIN).skip(1);
        let mut one = || blocks.find(|block| !block.starts_with(PARAMETERS));
        let (block, None) = (one()?, one()) else {
            return None;
        };
        let (label, rest) = block.split_once(DASHES)?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        Some(Self { label, body })
    }

    /// Whether its content is encrypted with a password, the newer or the older way.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.label.starts_with("ENCRYPTED") || self.body.contains("Proc-Type:")
    }

    /// Its content, which may be a secret.
    #[must_use]
    pub fn der(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut base64 = Zeroizing::new(Vec::with_capacity(self.body.len()));
        let bytes = self.body.bytes();
        base64.extend(bytes.filter(|byte| !byte.is_ascii_whitespace()));
        let mut der = Zeroizing::new(vec![0; base64.len()]);
        let length = STANDARD.decode_slice(&*base64, &mut der).ok()?;
        der.truncate(length);
        Some(der)
    }
}
