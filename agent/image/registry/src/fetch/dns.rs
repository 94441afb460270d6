//! The little of DNS that finds a registry's addresses (RFC 1035, RFC 3596).
//!
//! A static glibc must not load NSS plug-ins, so `getaddrinfo` is out of reach;
//! a resolver library would bring more code than this whole crate. Answers are
//! hostile and prove nothing: TLS authenticates the registry, digests the image.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The record type to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn record(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    /// To be asked again over TCP.
    Truncated,
    /// The server cannot or will not say.
    Failed,
}

const INTERNET: u16 = 1;

/// A recursive query; `None` if the name is not a host name.
pub(crate) fn query(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(family.record().to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    // The name with its length bytes takes at most 255.
    (message.len() <= 12 + 255 + 4).then_some(message)
}

/// Reads the answer to a query; `None` if it is not the answer to this one.
pub(crate) fn answer(query: &[u8], message: &[u8]) -> Option<Answer> {
    let mut reader = Reader { bytes: message };
    let id = reader.take(2)?;
    let flags = reader.u16()?;
    let [questions, answers] = [reader.u16()?, reader.u16()?];
    reader.take(4)?;
    let question = query.get(12..)?;
    let echoed = reader.take(question.len())?;
    let is_response = flags & 0x8000 != 0;
    if query.get(..2)? != id
        || !is_response
        || questions != 1
        || !echoed.eq_ignore_ascii_case(question)
    {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    match flags & 15 {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        _ => return Some(Answer::Failed),
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        reader.skip_name()?;
        let [kind, class] = [reader.u16()?, reader.u16()?];
        reader.take(4)?;
        let length = reader.u16()?;
        let value = reader.take(usize::from(length))?;
        if class == INTERNET {
            addresses.extend(address(kind, value));
        }
    }
    Some(Answer::Addresses(addresses))
}

/// A recursive server sends the whole chain of aliases; the addresses at its end suffice.
fn address(kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        1 => <[u8; 4]>::try_from(value)
            .ok()
            .map(|octets| Ipv4Addr::from(octets).into()),
        28 => <[u8; 16]>::try_from(value)
            .ok()
            .map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Names are skipped, not read, so compression pointers need not be followed.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match *self.take(1)?.first()? {
                0 => return Some(()),
                length if length & 0xc0 == 0xc0 => return self.take(1).map(|_| ()),
                length if length < 64 => self.take(usize::from(length))?,
                _ => return None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(query: &[u8], flags: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[7] = u8::try_from(records.len()).unwrap();
        message.extend(records.concat());
        message
    }

    const A: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";
    const CNAME: &[u8] = b"\x01x\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c";

    #[test]
    fn query_asks_for_the_name() {
        let bytes = query(0x1234, "r.example", Family::V6).unwrap();
        assert_eq!(
            bytes,
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01r\x07example\0\0\x1c\0\x01"
        );
        for name in ["", "a..b", &"x".repeat(64), &"abc.".repeat(70)] {
            assert_eq!(query(1, name, Family::V4), None, "{name}");
        }
    }

    #[test]
    fn answer_follows_aliases_to_addresses() {
        let query = query(7, "r.example", Family::V4).unwrap();
        let message = response(&query, 0x8180, &[CNAME, A]);
        assert_eq!(
            answer(&query, &message),
            Some(Answer::Addresses(vec![[10, 0, 0, 1].into()]))
        );
        assert_eq!(
            answer(&query, &response(&query, 0x8183, &[])),
            Some(Answer::NoSuchName)
        );
        assert_eq!(
            answer(&query, &response(&query, 0x8182, &[])),
            Some(Answer::Failed)
        );
        assert_eq!(
            answer(&query, &response(&query, 0x8380, &[])),
            Some(Answer::Truncated)
        );
    }

    #[test]
    fn answers_to_other_questions_and_cut_ones_are_ignored() {
        let ours = query(7, "r.example", Family::V4).unwrap();
        let other = query(7, "s.example", Family::V4).unwrap();
        let other_id = query(8, "r.example", Family::V4).unwrap();
        for sent in [&other, &other_id] {
            assert_eq!(answer(&ours, &response(sent, 0x8180, &[A])), None);
        }
        assert_eq!(answer(&ours, &ours), None);
        let whole = response(&ours, 0x8180, &[CNAME, A]);
        for cut in 0..whole.len() {
            assert_eq!(answer(&ours, &whole[..cut]), None);
        }
    }
}
