//! Files written byte by byte, so that each rule can be broken alone.

/// A variable header: type and structure.
pub(crate) type Header = (u32, Vec<u8>);

pub(crate) const PLATFORM: u32 = 0x001;
pub(crate) const POLICY: u32 = 0x101;
pub(crate) const AREA: u32 = 0x301;
pub(crate) const PAGE: u32 = 0x302;
pub(crate) const INSERT: u32 = 0x303;
pub(crate) const CONTEXT: u32 = 0x304;
pub(crate) const ID_BLOCK: u32 = 0x30b;
pub(crate) const VP_COUNT: u32 = 0x307;

/// Two pages behind the headers, which is enough for all cases; `DATA` stands for the first.
pub(crate) const DATA: u32 = 0xdada_dada;

/// Two pages of data end each file.
pub(crate) const DATA_BYTES: usize = 2 * 4096;

/// What the data pages are filled with.
pub(crate) const DATA_BYTE: u8 = 0xda;

/// A file of these headers, whose sizes, offsets and checksum are right.
pub(crate) fn file(headers: &[Header]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, value) in headers {
        list.extend(kind.to_le_bytes());
        list.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        list.extend(value);
        list.resize(list.len().next_multiple_of(8), 0);
    }
    let data_at = u32::try_from(24 + list.len()).unwrap();
    let placeholder = DATA.to_le_bytes();
    let mut at = 0;
    while at + 4 <= list.len() {
        if list[at..at + 4] == placeholder {
            list[at..at + 4].copy_from_slice(&data_at.to_le_bytes());
        }
        at += 4;
    }
    framed(1, 24, &list)
}

/// The same with any version and place of the headers.
pub(crate) fn framed(version: u32, headers_at: usize, list: &[u8]) -> Vec<u8> {
    let mut file = b"IGVM".to_vec();
    let number = |size: usize| u32::try_from(size).unwrap();
    let total = headers_at + list.len() + DATA_BYTES;
    for field in [
        version,
        number(headers_at),
        number(list.len()),
        number(total),
        0,
    ] {
        file.extend(field.to_le_bytes());
    }
    file.resize(headers_at, 0);
    file.extend(list);
    file.resize(total, DATA_BYTE);
    seal(&mut file);
    file
}

/// Makes the checksum right again.
pub(crate) fn seal(file: &mut [u8]) {
    let at = |offset: usize| {
        let bytes: [u8; 4] = file[offset..offset + 4].try_into().unwrap();
        u32::from_le_bytes(bytes) as usize
    };
    let fixed = if at(4) == 2 { 32 } else { 24 };
    let headers = at(8)..at(8) + at(12);
    file[20..24].fill(0);
    let covered = file[..fixed].iter().chain(&file[headers]);
    let mut crc = u32::MAX;
    for byte in covered {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    file[20..24].copy_from_slice(&(!crc).to_le_bytes());
}

/// Numbers one after the other, each with its size in bytes.
pub(crate) fn fields(parts: &[(u64, usize)]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|(number, bytes)| number.to_le_bytes()[..*bytes].to_vec())
        .collect()
}

pub(crate) fn platform(mask: u64, kind: u64) -> Header {
    (
        PLATFORM,
        fields(&[(mask, 4), (0, 1), (kind, 1), (1, 2), (0, 8)]),
    )
}

pub(crate) fn policy(mask: u64) -> Header {
    (POLICY, fields(&[(0x3_0000, 8), (mask, 4), (0, 4)]))
}

pub(crate) fn page(gpa: u64, offset: u32, flags: u64, kind: u64) -> Header {
    let offset = u64::from(offset);
    let parts = [(gpa, 8), (1, 4), (offset, 4), (flags, 4), (kind, 2), (0, 2)];
    (PAGE, fields(&parts))
}

pub(crate) fn context(gpa: u64, offset: u32, index: u64) -> Header {
    let offset = u64::from(offset);
    let parts = [(gpa, 8), (1, 4), (offset, 4), (index, 2), (0, 2)];
    (CONTEXT, fields(&parts))
}

pub(crate) fn area(bytes: u64, index: u64, offset: u64) -> Header {
    (AREA, fields(&[(bytes, 8), (index, 4), (offset, 4)]))
}

pub(crate) fn insert(gpa: u64, index: u64) -> Header {
    (INSERT, fields(&[(gpa, 8), (1, 4), (index, 4)]))
}

/// Platform and policy, then these, then one processor.
pub(crate) fn with(directives: &[Header]) -> Vec<Header> {
    let mut headers = vec![platform(1, 2), policy(1)];
    headers.extend_from_slice(directives);
    headers.push(context(0xffff_ffff_f000, DATA, 0));
    headers
}
