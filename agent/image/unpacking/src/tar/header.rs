//! One header block: POSIX.1-2024 `ustar`, GNU tar's variant, and the older form
//! without a magic.

use super::TarError;

pub(super) type Block = [u8; 512];

/// A header's fields; ids and device numbers stay text until something needs
/// them, because a PAX record may stand in for one that does not fit.
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) block: Block,
}

// Offset and length of each field.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const MTIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const KIND: usize = 156;
const LINK: (usize, usize) = (157, 100);
const MAGIC: (usize, usize) = (257, 6);
const MAJOR: (usize, usize) = (329, 8);
const MINOR: (usize, usize) = (337, 8);
const PREFIX: (usize, usize) = (345, 155);

/// Linux device numbers: 12 bits of major, 20 of minor.
const MAJOR_MAX: i64 = 0xfff;
const MINOR_MAX: i64 = 0xf_ffff;

impl Header {
    pub(super) fn parse(block: &Block) -> Result<Self, TarError> {
        verify(block)?;
        let posix = field(block, MAGIC) == b"ustar\0";
        let mut name = text(field(block, NAME)).to_vec();
        let prefix = text(field(block, PREFIX));
        if posix && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let size = number("size", field(block, SIZE))?;
        let mode = number("mode", field(block, MODE))?;
        Ok(Self {
            name,
            link: text(field(block, LINK)).to_vec(),
            kind: block[KIND],
            // Some writers put the file type above the permission bits; the type field rules.
            mode: u32::try_from(mode & 0o7777).map_err(|_| TarError::Range("mode"))?,
            size: u64::try_from(size).map_err(|_| TarError::Range("size"))?,
            mtime: number("modification time", field(block, MTIME))?,
            block: *block,
        })
    }

    pub(super) fn uid(&self) -> Result<u32, TarError> {
        id("uid", number("uid", field(&self.block, UID))?)
    }

    pub(super) fn gid(&self) -> Result<u32, TarError> {
        id("gid", number("gid", field(&self.block, GID))?)
    }

    pub(super) fn major(&self) -> Result<u32, TarError> {
        device(
            "major device number",
            number("major device number", field(&self.block, MAJOR))?,
            MAJOR_MAX,
        )
    }

    pub(super) fn minor(&self) -> Result<u32, TarError> {
        device(
            "minor device number",
            number("minor device number", field(&self.block, MINOR))?,
            MINOR_MAX,
        )
    }
}

/// An id as Linux has them: −1 means "leave it" to `chown` and names nobody.
pub(super) fn id(what: &'static str, value: i64) -> Result<u32, TarError> {
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(TarError::Range(what)),
    }
}

fn device(what: &'static str, value: i64, max: i64) -> Result<u32, TarError> {
    if (0..=max).contains(&value) {
        u32::try_from(value).map_err(|_| TarError::Range(what))
    } else {
        Err(TarError::Range(what))
    }
}

fn field(block: &Block, (offset, length): (usize, usize)) -> &[u8] {
    &block[offset..offset + length]
}

fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    &field[..end]
}

/// The sum of all bytes, the sum's own field taken as blanks; very old writers added signed bytes.
fn verify(block: &Block) -> Result<(), TarError> {
    let (offset, length) = CHECKSUM;
    let own = offset..offset + length;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (index, byte) in block.iter().enumerate() {
        let byte = if own.contains(&index) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    match number("checksum", field(block, CHECKSUM)) {
        Ok(stated) if stated == unsigned || stated == signed => Ok(()),
        _ => Err(TarError::Checksum),
    }
}

/// Octal text, or GNU's base 256: top bit set, then two's complement, big-endian.
pub(super) fn number(what: &'static str, field: &[u8]) -> Result<i64, TarError> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => binary(what, field),
        _ => octal(what, field),
    }
}

fn binary(what: &'static str, field: &[u8]) -> Result<i64, TarError> {
    let negative = field.first().is_some_and(|first| first & 0x40 != 0);
    let mut value: i128 = if negative { -1 } else { 0 };
    for (index, byte) in field.iter().enumerate() {
        // The first byte's top bit is the marker; the bit below it is the sign.
        let byte = match (index, negative) {
            (0, true) => *byte | 0x80,
            (0, false) => *byte & 0x7f,
            _ => *byte,
        };
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).map_err(|_| TarError::Range(what))
}

fn octal(what: &'static str, field: &[u8]) -> Result<i64, TarError> {
    let digits = text(field).trim_ascii();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(TarError::NotANumber(what));
        }
        // Twelve octal digits are 36 bits.
        value = (value << 3) | i64::from(digit - b'0');
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_never_narrowed() {
        let binary = |value: i128| {
            let mut bytes = value.to_be_bytes()[4..].to_vec();
            bytes[0] |= 0x80;
            bytes
        };
        for (text, value) in [
            ("0000644\0", 0o644),
            ("   17 \0\0", 0o17),
            ("\0\0\0\0\0\0\0\0", 0),
        ] {
            assert_eq!(number("x", text.as_bytes()).unwrap(), value);
        }
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(number("x", &binary(i128::from(value))).unwrap(), value);
        }
        assert!(matches!(
            number("x", &binary(1 << 70)),
            Err(TarError::Range(_))
        ));
        assert!(matches!(
            number("x", b"0000800\0"),
            Err(TarError::NotANumber(_))
        ));
        assert!(matches!(
            number("x", b"-000001\0"),
            Err(TarError::NotANumber(_))
        ));
    }

    #[test]
    fn ids_that_linux_has_not_are_refused() {
        assert_eq!(id("uid", 0xffff_fffe).unwrap(), 0xffff_fffe);
        for value in [-1, 0xffff_ffff, 0x1_0000_0000, i64::MIN] {
            assert!(id("uid", value).is_err(), "{value}");
        }
    }
}
