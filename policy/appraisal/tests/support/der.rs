//! A writer of DER, enough for certificates and revocation lists.

pub const INTEGER: u8 = 0x02;
pub const IA5_STRING: u8 = 0x16;
pub const OCTET_STRING: u8 = 0x04;

pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u16::try_from(content.len()).unwrap() {
        short @ 0..=0x7F => bytes.push(short as u8),
        short @ 0x80..=0xFF => bytes.extend([0x81, short as u8]),
        long => {
            bytes.push(0x82);
            bytes.extend(long.to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

pub fn small_integer(value: u8) -> Vec<u8> {
    match value {
        0..=0x7F => element(INTEGER, &[value]),
        _ => element(INTEGER, &[0, value]),
    }
}

pub fn boolean(value: bool) -> Vec<u8> {
    element(0x01, &[if value { 0xFF } else { 0 }])
}

pub fn bit_string(octets: &[u8]) -> Vec<u8> {
    element(0x03, &[&[0], octets].concat())
}

pub fn oid(content: &[u8]) -> Vec<u8> {
    element(0x06, content)
}

pub fn name(common_name: &str) -> Vec<u8> {
    let organisation = attribute(&[0x55, 0x04, 0x0A], "Advanced Micro Devices");
    sequence(&[&organisation, &attribute(&[0x55, 0x04, 0x03], common_name)])
}

fn attribute(kind: &[u8], text: &str) -> Vec<u8> {
    element(
        0x31,
        &sequence(&[&oid(kind), &element(0x0C, text.as_bytes())]),
    )
}

pub fn generalized_time(text: &str) -> Vec<u8> {
    element(0x18, text.as_bytes())
}

pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { boolean(true) } else { Vec::new() };
    sequence(&[&oid(id), &flag, &element(OCTET_STRING, value)])
}
