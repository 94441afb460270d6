//! Fixed-size fields of reports, each its own type, written as hexadecimal text.
//!
//! A launch measurement cannot be passed where a key digest is meant, and text of
//! the wrong length never becomes either.

use std::io::{self, Read};

/// Bytes or text are not a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Text of another length.
    #[error("{field} has {wanted} bytes, which are {} hexadecimal digits, not {found} characters", 2 * wanted)]
    Length {
        /// The field.
        field: &'static str,
        /// Its size in bytes.
        wanted: usize,
        /// Length of the text.
        found: usize,
    },
    /// Text of the right length that is not hexadecimal.
    #[error("{0} is written in hexadecimal digits, and some of these characters are none")]
    Digits(&'static str),
    /// More bytes than fit.
    #[error("{field} has {most} bytes at most, not {found}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its size in bytes.
        most: usize,
        /// How many there are.
        found: usize,
    },
}

/// Reads a field of a fixed size from hexadecimal text.
///
/// # Errors
///
/// [`FieldError`] if the text is something else.
pub fn field_of_hex<const N: usize>(
    field: &'static str,
    text: &str,
) -> Result<[u8; N], FieldError> {
    let (wanted, found) = (N, text.chars().count());
    if found != 2 * N {
        return Err(FieldError::Length {
            field,
            wanted,
            found,
        });
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| FieldError::Digits(field))?;
    Ok(bytes)
}

/// Makes a type of a field: its documentation, its name, its size in bytes, and what an
/// error calls it. Whoever uses it depends on `hex` and `serde`.
#[macro_export]
macro_rules! field {
    ($(#[$doc:meta])* $name:ident, $size:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// Size in bytes.
            pub const SIZE: usize = $size;
            /// All bytes zero.
            pub const ZERO: Self = Self([0; $size]);
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&::hex::encode(self.0))
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::FieldError;

            fn from_str(text: &str) -> Result<Self, $crate::FieldError> {
                $crate::field_of_hex($what, text).map(Self)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }
    };
}

field!(
    /// What the guest had signed: binds nonce, keys and log to the report.
    ReportData, 64, "report data"
);
field!(
    /// What the host gave at launch: binds initdata or the policy.
    HostData, 32, "host data"
);
field!(
    /// The launch measurement: SHA-384 over the initial guest.
    LaunchMeasurement, 48, "a launch measurement"
);
field!(
    /// One PCR of the SHA-256 bank, or any other SHA-256.
    Sha256Digest, 32, "a SHA-256 digest"
);
field!(
    /// A SHA-384, such as the running value of the measurement log.
    Sha384Digest, 48, "a SHA-384 digest"
);

impl ReportData {
    /// Pads a digest or nonce of at most 64 bytes with zeros on the right.
    ///
    /// # Errors
    ///
    /// [`FieldError`] if it is longer: cutting it would bind less than asked.
    pub fn padded(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut data = [0; Self::SIZE];
        data.get_mut(..bytes.len())
            .ok_or(FieldError::TooLong {
                field: "report data",
                most: Self::SIZE,
                found: bytes.len(),
            })?
            .copy_from_slice(bytes);
        Ok(Self(data))
    }
}

impl HostData {
    /// Fits an initdata digest to the field: cut on the right, or zero-padded.
    pub fn fitted(digest: &[u8]) -> Self {
        let mut data = [0; Self::SIZE];
        data.iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = *from);
        Self(data)
    }
}

impl Sha256Digest {
    /// Hashes the parts in order.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(fixed(hash(&aws_lc_rs::digest::SHA256, parts).as_ref()))
    }

    /// Hashes all that there is to read.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn of_all(mut reader: impl Read) -> io::Result<Self> {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self(fixed(context.finish().as_ref()))),
                Ok(count) => context.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Sha384Digest {
    /// Hashes the parts in order.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(fixed(hash(&aws_lc_rs::digest::SHA384, parts).as_ref()))
    }
}

fn hash(
    algorithm: &'static aws_lc_rs::digest::Algorithm,
    parts: &[&[u8]],
) -> aws_lc_rs::digest::Digest {
    let mut context = aws_lc_rs::digest::Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    context.finish()
}

fn fixed<const N: usize>(digest: &[u8]) -> [u8; N] {
    digest
        .try_into()
        .expect("an algorithm's digests have its size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_another_length_is_refused() {
        assert!("00".repeat(48).parse::<LaunchMeasurement>().is_ok());
        assert!("00".repeat(47).parse::<LaunchMeasurement>().is_err());
        assert!("zz".repeat(48).parse::<LaunchMeasurement>().is_err());
    }

    #[test]
    fn an_error_counts_what_it_names() {
        let said = |text: &str| text.parse::<HostData>().unwrap_err().to_string();
        let lengths = "host data has 32 bytes, which are 64 hexadecimal digits, not 62 characters";
        assert_eq!(said(&"00".repeat(31)), lengths);
        let digits =
            "host data is written in hexadecimal digits, and some of these characters are none";
        assert_eq!(said(&"0g".repeat(32)), digits);
        assert_eq!(
            ReportData::padded(&[0; 65]).unwrap_err().to_string(),
            "report data has 64 bytes at most, not 65"
        );
    }

    #[test]
    fn report_data_is_padded_but_never_cut() {
        assert_eq!(ReportData::padded(&[7; 48]).unwrap().0[47..50], [7, 0, 0]);
        assert!(ReportData::padded(&[7; 65]).is_err());
    }

    #[test]
    fn host_data_is_cut_or_padded_on_the_right() {
        assert_eq!(HostData::fitted(&[7; 48]).0, [7; 32]);
        assert_eq!(HostData::fitted(&[7; 31]).0[30..], [7, 0]);
    }

    #[test]
    fn sha384_matches_the_published_example() {
        // FIPS 180-4, SHA-384 of "abc".
        assert_eq!(
            Sha384Digest::of(&[b"a", b"bc"]).to_string(),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7"
        );
    }
}
