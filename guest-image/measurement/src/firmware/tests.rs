//! Claims about the firmware parser, on published tails and on broken ones.

use proptest::prelude::*;

use super::*;

const TAIL: &[u8] = include_bytes!("../../tests/vectors/ovmf_AmdSev_suffix.bin");

fn entry(guid: Guid, data: &[u8]) -> Vec<u8> {
    let size = u16::try_from(data.len() + ENTRY_OVERHEAD).unwrap();
    [data, &size.to_le_bytes(), &guid.0].concat()
}

/// A page of firmware with these entries and one metadata blob at its start.
fn image(entries: &[Vec<u8>], metadata: &[u8]) -> Vec<u8> {
    let entries = entries.concat();
    let total = u16::try_from(entries.len() + ENTRY_OVERHEAD).unwrap();
    let table = [entries.as_slice(), &total.to_le_bytes(), &FOOTER.0].concat();
    let mut image = vec![0; PAGE_BYTES];
    image[..metadata.len()].copy_from_slice(metadata);
    let end = PAGE_BYTES - AFTER_FOOTER;
    image[end - table.len()..end].copy_from_slice(&table);
    image
}

fn metadata(version: u32, sections: &[[u32; 3]]) -> Vec<u8> {
    let size = 16 + 12 * u32::try_from(sections.len()).unwrap();
    let mut bytes = b"ASEV".to_vec();
    for number in [size, version, u32::try_from(sections.len()).unwrap()] {
        bytes.extend(number.to_le_bytes());
    }
    for number in sections.iter().flatten() {
        bytes.extend(number.to_le_bytes());
    }
    bytes
}

fn at_start() -> Vec<u8> {
    entry(SEV_METADATA, &4096_u32.to_le_bytes())
}

#[test]
fn the_published_tail_is_read() {
    let firmware = Firmware::parse(TAIL).unwrap();
    assert_eq!(firmware.ap_reset_eip(), Some(0x80_b004));
    assert_eq!(firmware.hash_table_gpa(), Some(0x81_0c00));
    assert_eq!(firmware.sections().len(), 7);
    let expected = Section {
        gpa: 0x81_0000,
        pages: 1,
        kind: SectionKind::KernelHashes,
    };
    assert_eq!(firmware.sections().get(5), Some(&expected));
}

#[test]
fn sizes_that_no_firmware_has_are_refused() {
    for bytes in [0, 1, 4095, 4097, MAX_IMAGE_BYTES + 4096] {
        let refused = Firmware::parse(&vec![0; bytes]);
        assert_eq!(refused, Err(FirmwareError::Size(bytes)));
    }
    assert_eq!(Firmware::parse(&[0; 4096]), Err(FirmwareError::NoTable));
}

#[test]
fn tables_whose_sizes_lie_are_refused() {
    let mut cases = vec![image(&[vec![0; 17]], &[])];
    for size in [0_u16, 17, 0xffff] {
        let mut bytes = entry(RESET_VECTOR, &[0; 4]);
        bytes[4..6].copy_from_slice(&size.to_le_bytes());
        cases.push(image(&[bytes], &[]));
    }
    let mut long = image(&[], &[]);
    let total_at = PAGE_BYTES - AFTER_FOOTER - ENTRY_OVERHEAD;
    long[total_at..total_at + 2].copy_from_slice(&[0xff, 0xff]);
    cases.push(long.clone());
    long[total_at..total_at + 2].copy_from_slice(&[0, 0]);
    cases.push(long);
    cases.push(image(&[entry(SEV_METADATA, &[1])], &[]));
    for case in cases {
        assert_eq!(Firmware::parse(&case), Err(FirmwareError::Table));
    }
}

#[test]
fn an_entry_that_stands_twice_is_refused() {
    let blob = metadata(1, &[]);
    let twice = image(&[at_start(), at_start()], &blob);
    assert_eq!(Firmware::parse(&twice), Err(FirmwareError::Duplicate));
    assert!(Firmware::parse(&image(&[at_start()], &blob)).is_ok());
}

#[test]
fn metadata_that_is_missing_or_unknown_is_refused() {
    let none = image(&[entry(RESET_VECTOR, &[0; 4])], &[]);
    assert_eq!(Firmware::parse(&none), Err(FirmwareError::NoMetadata));
    let mut lying = metadata(1, &[[0, 4096, 1]]);
    lying[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    for blob in [metadata(2, &[]), b"ASEW".to_vec(), lying] {
        let refused = Firmware::parse(&image(&[at_start()], &blob));
        assert_eq!(refused, Err(FirmwareError::Metadata));
    }
    let outside = entry(SEV_METADATA, &5000_u32.to_le_bytes());
    let refused = Firmware::parse(&image(&[outside], &[]));
    assert_eq!(refused, Err(FirmwareError::Metadata));
}

#[test]
fn sections_that_cannot_be_are_refused() {
    for [gpa, bytes] in [
        [1, 4096],
        [0, 1],
        [0, 0],
        [0xffff_f000, 4096],
        [0, 0x800_0000],
    ] {
        let blob = metadata(1, &[[gpa, bytes, 1]]);
        let refused = Firmware::parse(&image(&[at_start()], &blob));
        assert_eq!(refused, Err(FirmwareError::SectionSize { gpa, bytes }));
    }
    let blob = metadata(1, &[[0, 4096, 9]]);
    let refused = Firmware::parse(&image(&[at_start()], &blob));
    assert_eq!(refused, Err(FirmwareError::SectionKind(9)));
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![0; 4096 - tail.len()];
        bytes.extend(tail);
        let _ = Firmware::parse(&bytes);
    }

    #[test]
    fn a_tail_with_changed_bytes_gives_an_answer(
        changes in proptest::collection::vec((3000..4096_usize, any::<u8>()), 1..8)
    ) {
        let mut bytes = TAIL.to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = Firmware::parse(&bytes);
    }
}
