//! Why a key ring cannot be used, or a message is not signed by it.

use std::fmt;

/// Why a key ring cannot be used, or a message is not signed by it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenPgpError {
    /// Not what RFC 9580 describes.
    #[error("it is not well-formed OpenPGP: {0}")]
    Malformed(&'static str),
    /// Well-formed, but not of the subset that is supported.
    #[error("it has {0}, which is not supported")]
    Unsupported(String),
    /// A digest that is, or may soon be, forged.
    #[error("it is signed over a {0} digest, which is too weak; sign it with SHA-256 or longer")]
    WeakDigest(&'static str),
    /// A key ring that holds more than public keys.
    #[error("it holds a secret key; export the public key alone")]
    SecretKey,
    /// A signer who is not in the key ring.
    #[error("it is signed by key {0}, which is none of the requirement's keys")]
    UnknownKey(String),
    /// A signer who is in the key ring, but may not sign.
    #[error("it is signed by key {key}, which {flaw}")]
    Key {
        /// The signing key's fingerprint.
        key: String,
        /// What is wrong with it.
        flaw: KeyFlaw,
    },
    /// The mathematics say no.
    #[error("the signature by key {0} does not verify; the content or the signature was changed")]
    Forged(String),
    /// An attribute that must not be ignored, but is not known.
    #[error("its signature has the critical subpacket {0}, which is not understood")]
    CriticalSubpacket(u8),
    /// A signature whose time is over.
    #[error("the signature expired on {0}")]
    Expired(Day),
    /// A signature that is older than its key, or not yet made.
    #[error("the signature is dated {made}, which is {reason}")]
    Dated {
        /// When it says that it was made.
        made: Day,
        /// Why that cannot be.
        reason: &'static str,
    },
}

/// Why a key of the key ring may not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFlaw {
    /// By itself or its primary key.
    #[error("is revoked")]
    Revoked,
    /// Its time is over.
    #[error("expired on {0}; put off its expiry and give the policy the new key, or sign anew")]
    Expired(Day),
    /// It comes from a time that the guest's clock has not reached.
    #[error("was made on {0}, which is in the future; check the clock")]
    Future(Day),
    /// Its owner made it for something else.
    #[error("is not made for signing")]
    NotForSigning,
    /// Nothing valid ties it to its user or its primary key.
    #[error("is not bound to its owner: {0}")]
    Unbound(String),
    /// An algorithm that is not supported.
    #[error("is of a kind that is not supported: {0}")]
    Algorithm(&'static str),
}

/// A time as people read it, in days (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day(pub(super) u64);

impl fmt::Display for Day {
    /// The proleptic Gregorian date, by counting from 1 March of year 0, so that
    /// the leap day is the last of its year.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0 / 86_400 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let year = era * 400 + year + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_717_200_000, "2024-06-01"),
            (4_294_967_295, "2106-02-07"),
        ] {
            assert_eq!(Day(seconds).to_string(), day);
        }
    }
}
