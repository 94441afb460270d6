//! Distinguished encoding rules (X.690), as much as AMD's certificates use.
//!
//! One-byte tags, definite lengths in their shortest form, nothing else. Strict
//! because two readings of one certificate are how checks are passed by.

use agent_evidence::bytes::{Reader, Truncated};

use crate::time::Timestamp;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0C;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const IA5_STRING: u8 = 0x16;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// Bytes are not the DER that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    /// A length points past the end.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// A length is indefinite, too long, or not in its shortest form.
    #[error("a length is not in its shortest form")]
    Length,
    /// Another element was expected here.
    #[error("tag {found:#04x} where {wanted:#04x} is expected")]
    Tag {
        /// The tag expected.
        wanted: u8,
        /// The tag found.
        found: u8,
    },
    /// Bytes follow the last element.
    #[error("{0} bytes follow the last element")]
    Trailing(usize),
    /// A value does not have the form of its type.
    #[error("a {0} is not well formed")]
    Value(&'static str),
}

/// One element: its tag, its content, and both with the length as they were read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) encoded: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Der<'a> {
    reader: Reader<'a>,
}

impl<'a> Der<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    pub(crate) fn next_is(&self, tag: u8) -> bool {
        self.reader.rest().first() == Some(&tag)
    }

    pub(crate) fn any(&mut self) -> Result<Element<'a>, DerError> {
        let start = self.reader.rest();
        let tag = self.reader.u8()?;
        let length = self.length()?;
        let content = self.reader.take(length)?;
        let encoded = start
            .get(..start.len() - self.reader.rest().len())
            .unwrap_or(start);
        Ok(Element {
            tag,
            content,
            encoded,
        })
    }

    fn length(&mut self) -> Result<usize, DerError> {
        let first = self.reader.u8()?;
        match first {
            0..=0x7F => Ok(usize::from(first)),
            0x81 => match self.reader.u8()? {
                short @ 0x80.. => Ok(usize::from(short)),
                _ => Err(DerError::Length),
            },
            0x82 => match self.reader.u16_be()? {
                long @ 0x100.. => Ok(usize::from(long)),
                _ => Err(DerError::Length),
            },
            0x83 => {
                let [a, b, c] = self.reader.array()?;
                match u32::from_be_bytes([0, a, b, c]) {
                    long @ 0x1_0000.. => usize::try_from(long).map_err(|_| DerError::Length),
                    _ => Err(DerError::Length),
                }
            }
            _ => Err(DerError::Length),
        }
    }

    pub(crate) fn element(&mut self, wanted: u8) -> Result<Element<'a>, DerError> {
        let element = self.any()?;
        if element.tag == wanted {
            Ok(element)
        } else {
            Err(DerError::Tag {
                wanted,
                found: element.tag,
            })
        }
    }

    /// Content of the next element, which must have this tag.
    pub(crate) fn content(&mut self, wanted: u8) -> Result<&'a [u8], DerError> {
        Ok(self.element(wanted)?.content)
    }

    /// A constructed element, opened.
    pub(crate) fn open(&mut self, wanted: u8) -> Result<Der<'a>, DerError> {
        Ok(Der::new(self.content(wanted)?))
    }

    pub(crate) fn finish(self) -> Result<(), DerError> {
        match self.reader.rest().len() {
            0 => Ok(()),
            left => Err(DerError::Trailing(left)),
        }
    }

    /// A non-negative INTEGER, big-endian, without its sign octet.
    pub(crate) fn unsigned(&mut self) -> Result<&'a [u8], DerError> {
        match self.content(INTEGER)? {
            [0] => Ok(&[]),
            [0, rest @ ..] if rest.first().is_some_and(|&high| high >= 0x80) => Ok(rest),
            value @ [0x01..=0x7F, ..] => Ok(value),
            _ => Err(DerError::Value("non-negative integer")),
        }
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, DerError> {
        match self.content(BOOLEAN)? {
            [0xFF] => Ok(true),
            [0x00] => Ok(false),
            _ => Err(DerError::Value("boolean")),
        }
    }

    /// A BIT STRING of whole octets.
    pub(crate) fn octets_of_bit_string(&mut self) -> Result<&'a [u8], DerError> {
        match self.content(BIT_STRING)? {
            [0, octets @ ..] => Ok(octets),
            _ => Err(DerError::Value("bit string of whole octets")),
        }
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, DerError> {
        let element = self.any()?;
        match element.tag {
            UTC_TIME => Timestamp::from_utc_time(element.content),
            GENERALIZED_TIME => Timestamp::from_generalized_time(element.content),
            _ => None,
        }
        .ok_or(DerError::Value("time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_must_be_the_shortest() {
        for bytes in [
            &[0x04, 0x81, 0x01, 0xAA][..],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x83, 0x00, 0xFF, 0xFF],
            &[0x04, 0x84, 0, 0, 0, 1, 0xAA],
            &[0x30, 0x80, 0x00, 0x00],
        ] {
            assert_eq!(
                Der::new(bytes).any().unwrap_err(),
                DerError::Length,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn length_past_the_end_is_refused() {
        let error = Der::new(&[0x04, 0x02, 0xAA]).any().unwrap_err();
        assert_eq!(error, DerError::Truncated(Truncated { wanted: 2, left: 1 }));
    }

    #[test]
    fn integers_have_one_form() {
        let read = |bytes: &'static [u8]| Der::new(bytes).unsigned();
        assert_eq!(read(&[2, 1, 0]), Ok(&[][..]));
        assert_eq!(read(&[2, 2, 0, 0xD9]), Ok(&[0xD9][..]));
        for bytes in [&[2, 1, 0xD9][..], &[2, 2, 0, 0x7F], &[2, 0], &[2, 2, 0, 0]] {
            assert!(Der::new(bytes).unsigned().is_err(), "{bytes:?}");
        }
    }
}
