//! A policy alone: AKS's way of binding one to a launch.
//!
//! The pod's annotation holds the policy's text in base64; SHA-256 of the text is
//! `HOST_DATA`, and the text reaches the guest by `SetPolicy`.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use super::{Digest, HOST_DATA_BYTES};

/// The pod annotation that carries a policy.
pub const POLICY_ANNOTATION: &str = "io.katacontainers.config.agent.policy";

/// The most bytes of a policy's text.
const POLICY_BYTES_MAX: usize = 1 << 20;

/// Why something is not a policy's text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Nothing.
    #[error("the policy is empty")]
    Empty,
    /// Larger than any policy may be.
    #[error("the policy is larger than {POLICY_BYTES_MAX} bytes")]
    TooLarge,
    /// Not base64.
    #[error("the policy annotation is not base64 of the policy's text")]
    Base64,
    /// Not text.
    #[error("the policy is not UTF-8 text")]
    Text,
}

/// A policy's text, not yet read as a policy.
#[derive(Clone, PartialEq, Eq)]
pub struct PolicyText(Box<str>);

impl fmt::Debug for PolicyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyText({:?})", self.digest())
    }
}

impl PolicyText {
    /// Takes a policy's text.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if it is empty or too large.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        match text.len() {
            0 => Err(PolicyError::Empty),
            1..=POLICY_BYTES_MAX => Ok(Self(text.into())),
            _ => Err(PolicyError::TooLarge),
        }
    }

    /// Reads the value of [`POLICY_ANNOTATION`].
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if it is not base64 of a policy's text.
    pub fn from_annotation(value: &str) -> Result<Self, PolicyError> {
        if value.len() > POLICY_BYTES_MAX.div_ceil(3) * 4 {
            return Err(PolicyError::TooLarge);
        }
        let bytes = STANDARD
            .decode(value.trim_ascii())
            .map_err(|_| PolicyError::Base64)?;
        Self::parse(std::str::from_utf8(&bytes).map_err(|_| PolicyError::Text)?)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::sha256(self.0.as_bytes())
    }

    /// `HOST_DATA` of a launch that binds it.
    #[must_use]
    pub fn host_data(&self) -> [u8; HOST_DATA_BYTES] {
        self.digest().host_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_data_is_the_digest_of_the_decoded_text() {
        let policy = PolicyText::from_annotation("YWJj\n").unwrap();
        assert_eq!(policy.as_str(), "abc");
        assert_eq!(
            policy.digest().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(policy.host_data()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn what_is_no_policy_is_refused_by_name() {
        let long = "A".repeat(POLICY_BYTES_MAX * 4 / 3 + 8);
        for (value, error) in [
            ("", PolicyError::Empty),
            ("YWJ", PolicyError::Base64),
            ("YW Jj", PolicyError::Base64),
            ("YW-_", PolicyError::Base64),
            ("//79", PolicyError::Text),
            (long.as_str(), PolicyError::TooLarge),
        ] {
            assert_eq!(PolicyText::from_annotation(value), Err(error), "{value:.9}");
        }
    }
}
