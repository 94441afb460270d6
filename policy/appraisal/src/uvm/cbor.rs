//! CBOR (RFC 8949), as much as signed endorsements use.
//!
//! Definite lengths, heads in their shortest form, no floating point, no map with a
//! key twice, and nothing nested deeper than [`MAX_DEPTH`]: the bytes are the host's.

use agent_evidence::bytes::{Reader, Truncated};

/// Levels below a header's value, which is deeper than any header we know has.
const MAX_DEPTH: u8 = 4;
/// Most entries of a map or array; the headers seen have seven.
const MAX_ENTRIES: u64 = 32;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;
/// False, true and null (RFC 8949, 3.3).
const SIMPLE_KNOWN: std::ops::RangeInclusive<u64> = 20..=22;

/// Bytes are not the CBOR that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// A length points past the end.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The length is left open until a break.
    #[error("an item has an indefinite length")]
    Indefinite,
    /// A length or number has a longer head than it needs, or a reserved one.
    #[error("an item's head is not in its shortest form")]
    Head,
    /// Another item was expected here.
    #[error("{found} where {wanted} is expected")]
    Kind {
        /// What was expected.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("a text is not utf-8")]
    Text,
    /// An integer beyond 64 bits with sign.
    #[error("an integer is out of range")]
    Range,
    /// Floating point, or a simple value without meaning.
    #[error("a floating-point or unknown simple value")]
    Simple,
    /// A map with one key twice.
    #[error("a map has a key twice")]
    DoubledKey,
    /// More entries than any header has.
    #[error("a map or array has {0} entries, more than {MAX_ENTRIES}")]
    TooMany(u64),
    /// Deeper than any header is.
    #[error("items are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Bytes follow the last item.
    #[error("{0} bytes follow the last item")]
    Trailing(usize),
}

/// Key of a header map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label<'a> {
    Integer(i64),
    Text(&'a str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Cbor<'a> {
    reader: Reader<'a>,
}

impl<'a> Cbor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
        }
    }

    /// Ends reading; nothing may be left.
    pub(super) fn finish(self) -> Result<(), CborError> {
        match self.reader.rest().len() {
            0 => Ok(()),
            left => Err(CborError::Trailing(left)),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let length = self.expect(BYTES)?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, CborError> {
        let length = self.expect(TEXT)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| CborError::Text)
    }

    pub(super) fn integer(&mut self) -> Result<i64, CborError> {
        let (kind, value) = self.head()?;
        let value = i64::try_from(value).map_err(|_| CborError::Range);
        match kind {
            UNSIGNED => value,
            // −1 − n, which no `n` of 63 bits overflows.
            NEGATIVE => Ok(-1 - value?),
            _ => Err(unexpected("an integer", kind)),
        }
    }

    /// The head of an array; its items follow.
    pub(super) fn array(&mut self) -> Result<u64, CborError> {
        bounded(self.expect(ARRAY)?)
    }

    /// The number of a tag; the tagged item follows.
    pub(super) fn tag(&mut self) -> Result<u64, CborError> {
        self.expect(TAG)
    }

    pub(super) fn next_is_array(&self) -> bool {
        self.reader.rest().first().map(|head| head >> 5) == Some(ARRAY)
    }

    /// A whole map whose keys are integers or text: each key once, with its value.
    pub(super) fn map(&mut self) -> Result<Vec<(Label<'a>, Self)>, CborError> {
        let count = bounded(self.expect(MAP)?)?;
        let mut entries: Vec<(Label<'a>, Self)> = Vec::new();
        for _ in 0..count {
            let label = self.label()?;
            if entries.iter().any(|(each, _)| *each == label) {
                return Err(CborError::DoubledKey);
            }
            entries.push((label, Self::new(self.skip(MAX_DEPTH)?)));
        }
        Ok(entries)
    }

    fn label(&mut self) -> Result<Label<'a>, CborError> {
        match self.reader.rest().first().map(|head| head >> 5) {
            Some(TEXT) => self.text().map(Label::Text),
            _ => self.integer().map(Label::Integer),
        }
    }

    /// One whole item as it is encoded, with at most this many levels below it.
    fn skip(&mut self, depth: u8) -> Result<&'a [u8], CborError> {
        let start = self.reader.rest();
        let (kind, value) = self.head()?;
        let below = match kind {
            BYTES | TEXT => self.take(value).map(|_| 0)?,
            ARRAY => bounded(value)?,
            MAP => 2 * bounded(value)?,
            TAG => 1,
            SIMPLE if !SIMPLE_KNOWN.contains(&value) => return Err(CborError::Simple),
            _ => 0,
        };
        for _ in 0..below {
            self.skip(depth.checked_sub(1).ok_or(CborError::TooDeep)?)?;
        }
        let read = start.len() - self.reader.rest().len();
        Ok(start.get(..read).unwrap_or(start))
    }

    fn expect(&mut self, wanted: u8) -> Result<u64, CborError> {
        match self.head()? {
            (kind, value) if kind == wanted => Ok(value),
            (kind, _) => Err(unexpected(name(wanted), kind)),
        }
    }

    /// Major type and argument (RFC 8949, 3).
    fn head(&mut self) -> Result<(u8, u64), CborError> {
        let first = self.reader.u8()?;
        let (kind, short) = (first >> 5, first & 0x1F);
        let (value, least) = match short {
            0..=23 => return Ok((kind, u64::from(short))),
            24 => (u64::from(self.reader.u8()?), 24),
            25 => (u64::from(self.reader.u16_be()?), 0x100),
            26 => (u64::from(self.reader.u32_be()?), 0x1_0000),
            27 => (self.reader.u64_be()?, 0x1_0000_0000),
            31 => return Err(CborError::Indefinite),
            _ => return Err(CborError::Head),
        };
        match kind {
            SIMPLE => Err(CborError::Simple),
            _ if value < least => Err(CborError::Head),
            _ => Ok((kind, value)),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(self.reader.take(length)?)
    }
}

/// The head of a byte string of this length, in its shortest form.
pub(super) fn bytes_head(length: usize) -> Vec<u8> {
    let kind = BYTES << 5;
    let length = u64::try_from(length).expect("a length fits 64 bits");
    let wide = length.to_be_bytes();
    let (short, tail) = match length {
        0..=23 => (wide[7], &wide[8..]),
        24..=0xFF => (24, &wide[7..]),
        0x100..=0xFFFF => (25, &wide[6..]),
        0x1_0000..=0xFFFF_FFFF => (26, &wide[4..]),
        _ => (27, &wide[..]),
    };
    [&[kind | short], tail].concat()
}

fn bounded(count: u64) -> Result<u64, CborError> {
    match count {
        0..=MAX_ENTRIES => Ok(count),
        _ => Err(CborError::TooMany(count)),
    }
}

fn unexpected(wanted: &'static str, found: u8) -> CborError {
    CborError::Kind {
        wanted,
        found: name(found),
    }
}

const fn name(kind: u8) -> &'static str {
    match kind {
        UNSIGNED => "a non-negative integer",
        NEGATIVE => "a negative integer",
        BYTES => "a byte string",
        TEXT => "a text",
        ARRAY => "an array",
        MAP => "a map",
        TAG => "a tag",
        _ => "a simple value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<&[u8], CborError> {
        let mut cbor = Cbor::new(bytes);
        let item = cbor.skip(MAX_DEPTH)?;
        cbor.finish().map(|()| item)
    }

    #[test]
    fn heads_must_be_the_shortest() {
        for bytes in [
            &[0x18, 23][..],
            &[0x19, 0, 0xFF],
            &[0x1A, 0, 0, 0xFF, 0xFF],
            &[0x1B, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x58, 1, 0xAA],
            &[0x1C],
            &[0x1D],
            &[0x1E],
        ] {
            assert_eq!(read(bytes), Err(CborError::Head), "{bytes:x?}");
        }
        for bytes in [
            &[0x17][..],
            &[0x18, 24],
            &[0x19, 1, 0],
            &[0x1A, 0, 1, 0, 0],
            &[0x1B, 0, 0, 0, 1, 0, 0, 0, 0],
        ] {
            assert_eq!(read(bytes), Ok(bytes));
        }
    }

    #[test]
    fn indefinite_lengths_are_refused() {
        for bytes in [
            &[0x5F, 0x41, 0xAA, 0xFF][..],
            &[0x7F, 0xFF],
            &[0x9F, 0x01, 0xFF],
            &[0xBF, 0xFF],
            &[0xFF],
        ] {
            assert_eq!(read(bytes), Err(CborError::Indefinite), "{bytes:x?}");
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x01]].concat();
        let limit = usize::from(MAX_DEPTH);
        assert!(read(&nested(limit)).is_ok());
        assert_eq!(read(&nested(limit + 1)), Err(CborError::TooDeep));
        assert_eq!(read(&vec![0x81; 100_000]), Err(CborError::TooDeep));
        assert_eq!(read(&vec![0xC1; 100_000]), Err(CborError::TooDeep));
    }

    #[test]
    fn a_length_that_lies_is_refused_before_it_is_followed() {
        for bytes in [&[0x41][..], &[0x5A, 0xFF, 0xFF, 0xFF, 0xFF], &[0x82, 0x01]] {
            let error = read(bytes).unwrap_err();
            assert!(matches!(error, CborError::Truncated(_)), "{bytes:x?}");
        }
        let most = [0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(read(&most), Err(CborError::TooMany(u64::MAX)));
        assert_eq!(read(&[0xB8, 33]), Err(CborError::TooMany(33)));
    }

    #[test]
    fn a_key_twice_is_refused_and_a_text_is_no_number() {
        let map = |bytes: &'static [u8]| Cbor::new(bytes).map().map(|entries| entries.len());
        assert_eq!(map(&[0xA2, 0x01, 0x00, 0x61, b'1', 0x00]), Ok(2));
        assert_eq!(map(&[0xA2, 0x01, 0, 0x01, 0]), Err(CborError::DoubledKey));
        let twice = &[0xA2, 0x61, b'a', 0, 0x61, b'a', 1];
        assert_eq!(map(twice), Err(CborError::DoubledKey));
        let by_bytes = map(&[0xA1, 0x41, 0xAA, 0]).unwrap_err();
        assert!(matches!(by_bytes, CborError::Kind { .. }));
    }

    #[test]
    fn floating_point_and_unknown_simple_values_are_refused() {
        for bytes in [&[0xF9, 0, 0][..], &[0xFB; 9], &[0xF8, 32], &[0xE0], &[0xF7]] {
            assert_eq!(read(bytes), Err(CborError::Simple), "{bytes:x?}");
        }
        assert!(read(&[0xF5]).is_ok());
    }

    #[test]
    fn integers_end_at_64_bits_with_sign() {
        let integer = |bytes: &'static [u8]| Cbor::new(bytes).integer();
        assert_eq!(integer(&[0x38, 37]), Ok(-38));
        let extreme = &[0x3B, 0x7F, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(integer(extreme), Ok(i64::MIN));
        let beyond = &[0x3B, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(integer(beyond), Err(CborError::Range));
    }

    #[test]
    fn written_heads_are_read_back() {
        for length in [0, 23, 24, 0xFF, 0x100, 0xFFFF, 0x1_0000] {
            let item = [bytes_head(length), vec![0; length]].concat();
            assert_eq!(read(&item), Ok(&item[..]));
        }
    }
}
