//! Digests as types: a launch digest cannot be taken for the digest of a file.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, SHA384, digest};

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a digest of {bytes} bytes in hexadecimal")]
pub struct ParseDigestError {
    text: String,
    bytes: usize,
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $hash:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The digest of some bytes.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                let mut hash = [0; $bytes];
                hash.copy_from_slice(digest(&$hash, bytes).as_ref());
                Self(hash)
            }

            /// A digest that was computed elsewhere.
            #[must_use]
            pub const fn new(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The digest's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes)
                    .map(|()| Self(bytes))
                    .map_err(|_| ParseDigestError {
                        text: text.to_owned(),
                        bytes: $bytes,
                    })
            }
        }
    };
}

digest!(
    /// SHA-256, as used for the kernel, the initrd and the command line.
    Sha256Digest,
    SHA256,
    32
);
digest!(
    /// SHA-384, as used for pages, launch digests and key digests.
    Sha384Digest,
    SHA384,
    48
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_wrong_lengths_are_refused() {
        let digest = Sha384Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for text in ["", "00", &"0".repeat(95), &"g".repeat(96), &"0".repeat(98)] {
            assert!(text.parse::<Sha384Digest>().is_err());
        }
    }
}
