//! Content digests: parsed once, then compared as bytes.
//!
//! A digest is the only thing that ties what the registry sends to what the
//! owner named, so a text that is not exactly `algorithm:hex` never becomes a
//! [`Digest`]. Hashing is *aws-lc-rs*'s: it is linked for TLS anyway, and it uses the
//! CPU's SHA instructions where there are any.

use std::fmt;

use aws_lc_rs::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use serde::{Deserialize, Deserializer, de};

/// The digest of some content, of an algorithm that registries use.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: String,
}

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a digest: {reason}")]
pub struct DigestError {
    text: String,
    reason: &'static str,
}

impl Digest {
    /// Parses `sha256:…`, `sha384:…` or `sha512:…` with lower-case hexadecimal digits.
    ///
    /// # Errors
    /// Another algorithm, another length or another character.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let refuse = |reason| DigestError {
            text: text.chars().take(150).collect(),
            reason,
        };
        let (name, hex) = text
            .split_once(':')
            .ok_or_else(|| refuse("it has no `:`"))?;
        let algorithm =
            algorithm(name).ok_or_else(|| refuse("only sha256, sha384 and sha512 are known"))?;
        if hex.len() != algorithm.output_len() * 2 {
            return Err(refuse("its length is wrong"));
        }
        if !hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(refuse("it must be lower-case hexadecimal"));
        }
        Ok(Self {
            text: text.to_owned(),
        })
    }

    /// The SHA-256 of these bytes.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher {
            name: "sha256",
            context: Context::new(&SHA256),
        };
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest that has these bytes as SHA-256.
    pub fn of_sha256(bytes: [u8; 32]) -> Self {
        let mut text = String::from("sha256:");
        push_hex(&mut text, &bytes);
        Self { text }
    }

    /// The digest's text, `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The hexadecimal part.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// A hasher of this digest's algorithm.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        let name = self.text.split_once(':').map_or("", |(name, _)| name);
        match name {
            "sha384" => Hasher {
                name: "sha384",
                context: Context::new(&SHA384),
            },
            "sha512" => Hasher {
                name: "sha512",
                context: Context::new(&SHA512),
            },
            _ => Hasher {
                name: "sha256",
                context: Context::new(&SHA256),
            },
        }
    }

    /// Whether this is the digest of these bytes.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

fn algorithm(name: &str) -> Option<&'static Algorithm> {
    match name {
        "sha256" => Some(&SHA256),
        "sha384" => Some(&SHA384),
        "sha512" => Some(&SHA512),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// Hashes a stream; it becomes a [`Digest`] at its end.
pub struct Hasher {
    name: &'static str,
    context: Context,
}

impl Hasher {
    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        let mut text = format!("{}:", self.name);
        push_hex(&mut text, self.context.finish().as_ref());
        Digest { text }
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::sha256(b"").as_str(), EMPTY);
        assert!(Digest::parse(EMPTY).unwrap().is_of(b""));
        assert!(!Digest::parse(EMPTY).unwrap().is_of(b"x"));
    }

    #[test]
    fn all_three_algorithms_are_computed_under_their_own_name() {
        for (name, len) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
            let zeros = Digest::parse(&format!("{name}:{}", "0".repeat(len))).unwrap();
            let computed = zeros.hasher().finish();
            assert!(computed.as_str().starts_with(name));
            assert_eq!(computed.hex().len(), len);
        }
    }

    #[test]
    fn parse_refuses_what_is_not_a_digest() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        let md5 = "md5:d41d8cd98f00b204e9800998ecf8427e";
        for text in [
            "",
            "sha256",
            "sha256:",
            &EMPTY[1..],
            &EMPTY[..70],
            &upper,
            md5,
        ] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }
}
