//! Packets: a tag, a length in one of seven forms, and a body (RFC 9580, section 4.2).

use std::borrow::Cow;

use super::{cursor::Cursor, error::OpenPgpError};

pub(super) const SIGNATURE: u8 = 2;
pub(super) const ONE_PASS: u8 = 4;
pub(super) const SECRET_KEY: u8 = 5;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const SECRET_SUBKEY: u8 = 7;
pub(super) const COMPRESSED: u8 = 8;
pub(super) const LITERAL: u8 = 11;
pub(super) const TRUST: u8 = 12;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;

/// A first part shorter than this is not allowed (section 4.2.1.4).
const FIRST_PART_MIN: usize = 512;

/// One packet; its body is copied only where it came in parts.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: Cow<'a, [u8]>,
}

/// Takes packets from the front of what is left.
pub(super) struct Packets<'a>(Cursor<'a>);

impl<'a> Packets<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Cursor::new(bytes))
    }

    /// The next packet; `None` at the end, which must be exactly there.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'a>>, OpenPgpError> {
        let Some(head) = self.0.u8() else {
            return Ok(None);
        };
        let (tag, body) = if head & 0xc0 == 0xc0 {
            (head & 0x3f, self.new_format(head & 0x3f))
        } else if head & 0x80 == 0x80 {
            let tag = (head >> 2) & 0x0f;
            (tag, self.old_format(tag, head & 3).map(Cow::Borrowed))
        } else {
            return Err(OpenPgpError::Malformed(
                "a packet does not begin with a tag",
            ));
        };
        if tag == 0 {
            return Err(OpenPgpError::Malformed("a packet has the tag 0"));
        }
        let body = body.ok_or(OpenPgpError::Malformed("a packet's length is wrong"))?;
        Ok(Some(Packet { tag, body }))
    }

    fn old_format(&mut self, tag: u8, length_type: u8) -> Option<&'a [u8]> {
        let length = match length_type {
            0 => usize::from(self.0.u8()?),
            1 => usize::from(self.0.u16()?),
            2 => usize::try_from(self.0.u32()?).ok()?,
            // To the end of the input, which makes sense for content only.
            _ => return is_content(tag).then(|| self.0.rest()),
        };
        self.0.take(length)
    }

    fn new_format(&mut self, tag: u8) -> Option<Cow<'a, [u8]>> {
        let (first, partial) = self.new_length()?;
        let start = self.0.take(first)?;
        if !partial {
            return Some(Cow::Borrowed(start));
        }
        if !is_content(tag) || first < FIRST_PART_MIN {
            return None;
        }
        let mut body = start.to_vec();
        loop {
            let (length, partial) = self.new_length()?;
            body.extend_from_slice(self.0.take(length)?);
            if !partial {
                return Some(Cow::Owned(body));
            }
        }
    }

    /// A length, and whether more parts follow.
    fn new_length(&mut self) -> Option<(usize, bool)> {
        Some(match self.0.u8()? {
            first @ 0..=191 => (usize::from(first), false),
            first @ 192..=223 => {
                let second = usize::from(self.0.u8()?);
                (((usize::from(first) - 192) << 8) + second + 192, false)
            }
            255 => (usize::try_from(self.0.u32()?).ok()?, false),
            first => (1 << (first & 0x1f), true),
        })
    }
}

/// Packets whose length may be unknown when their writing begins.
fn is_content(tag: u8) -> bool {
    matches!(tag, COMPRESSED | LITERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, OpenPgpError> {
        let mut packets = Packets::new(bytes);
        let mut found = Vec::new();
        while let Some(packet) = packets.next()? {
            found.push((packet.tag, packet.body.into_owned()));
        }
        Ok(found)
    }

    #[test]
    fn every_form_of_length_is_read() {
        let long = vec![7; 300];
        let mut parts = vec![0xc0 | LITERAL, 0xe0 | 9];
        parts.extend([1; 512]);
        parts.extend([0xe1, 2, 2, 1, 3]);
        for (bytes, tag, body) in [
            (vec![0x88, 1, 9], SIGNATURE, vec![9]),
            (
                [&[0x89, 1, 44][..], &long].concat(),
                SIGNATURE,
                long.clone(),
            ),
            (vec![0x8a, 0, 0, 0, 1, 9], SIGNATURE, vec![9]),
            (vec![0xa3, 9, 9], COMPRESSED, vec![9, 9]),
            (vec![0xc2, 1, 9], SIGNATURE, vec![9]),
            (
                [&[0xc2, 192, 108][..], &long].concat(),
                SIGNATURE,
                long.clone(),
            ),
            (vec![0xc2, 255, 0, 0, 0, 1, 9], SIGNATURE, vec![9]),
            (parts, LITERAL, [&[1; 512][..], &[2, 2, 3]].concat()),
        ] {
            assert_eq!(all(&bytes).unwrap(), [(tag, body)], "{bytes:?}");
        }
    }

    #[test]
    fn lengths_that_lead_nowhere_are_refused() {
        let mut short_part = vec![0xc0 | LITERAL, 0xe1, 2, 2, 0];
        let mut endless = vec![0xc0 | LITERAL, 0xe0 | 9];
        endless.extend([1; 512]);
        let mut key_in_parts = vec![0xc0 | PUBLIC_KEY, 0xe0 | 9];
        key_in_parts.extend([1; 512]);
        key_in_parts.push(0);
        short_part.push(0);
        for bytes in [
            &[0x88][..],
            &[0x88, 2, 0],
            &[0x8a, 0xff, 0xff, 0xff, 0xff],
            &[0xc2, 255, 0xff, 0xff, 0xff, 0xff],
            &[0xc2, 223],
            &[0x8b, 1, 1],
            &[0x00],
            &[0x7f],
            &[0x80, 0],
            &[0xc0, 0],
            &short_part,
            &endless,
            &key_in_parts,
        ] {
            assert!(
                matches!(all(bytes), Err(OpenPgpError::Malformed(_))),
                "{bytes:?}"
            );
        }
    }
}
