//! Each rule of the format, broken alone.

use guest_image_measurement::igvm::{Igvm, IgvmError, Loader};

use crate::raw::{
    AREA, CONTEXT, DATA, DATA_BYTES, Header, ID_BLOCK, INSERT, PAGE, PLATFORM, POLICY, VP_COUNT,
    area, context, fields, file, framed, insert, page, platform, policy, seal, with,
};

const VMSA_GPA: u64 = 0xffff_ffff_f000;

fn error(headers: &[Header]) -> IgvmError {
    Igvm::parse(&file(headers)).unwrap_err()
}

/// A header with one byte more or less than its own, or another byte at a place.
fn changed(header: Header, at: usize, byte: u8) -> Header {
    let (kind, mut value) = header;
    value[at] = byte;
    (kind, value)
}

#[test]
fn the_unbroken_file_is_read() {
    let headers = with(&[page(0x1000, DATA, 0, 0)]);
    let bytes = file(&headers);
    let parsed = Igvm::parse(&bytes).unwrap();
    assert_eq!(parsed.processors(), 1);
    assert!(parsed.digest(Loader::Qemu).is_ok());
}

#[test]
fn a_broken_frame_is_refused() {
    let good = file(&with(&[]));
    let edited = |at: usize, bytes: &[u8], sealed: bool| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        if sealed {
            seal(&mut file);
        }
        Igvm::parse(&file).unwrap_err()
    };
    assert_eq!(edited(0, b"igvm", false), IgvmError::Magic);
    assert_eq!(edited(4, &[3], true), IgvmError::Version(3));
    assert_eq!(edited(4, &[0], true), IgvmError::Version(0));
    assert!(matches!(edited(16, &[1], false), IgvmError::Size { .. }));
    assert!(matches!(
        edited(20, &[0; 4], false),
        IgvmError::Checksum { .. }
    ));
    assert!(matches!(
        edited(30, &[9], false),
        IgvmError::Checksum { .. }
    ));
    // Headers within the fixed header, at an odd place, and beyond the file.
    assert_eq!(edited(8, &[16], false), IgvmError::Headers);
    assert_eq!(edited(8, &[25], false), IgvmError::Headers);
    assert_eq!(edited(12, &[0xff; 4], false), IgvmError::Headers);
    assert_eq!(
        edited(8, &[0xf8, 0xff, 0xff, 0xff], false),
        IgvmError::Headers
    );
    // A header whose length is a lie.
    assert_eq!(edited(28, &[0xff; 4], true), IgvmError::Headers);
    for bytes in [&good[..0], b"IGV", b"IGVM", &good[..23]] {
        assert!(Igvm::parse(bytes).is_err(), "{}", bytes.len());
    }
}

#[test]
fn version_2_is_read_for_x86_64_with_small_pages_only() {
    let good = file(&with(&[]));
    let headers = &good[24..good.len() - DATA_BYTES];
    let second = |architecture: u8, page_size: u32| {
        // The processor's state lies 8 bytes further back, behind the longer fixed header.
        let mut list = headers.to_vec();
        let at = list.len() - 24 + 12;
        let offset = u32::try_from(32 + list.len()).unwrap();
        list[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        let mut file = framed(2, 32, &list);
        file[24] = architecture;
        file[28..32].copy_from_slice(&page_size.to_le_bytes());
        seal(&mut file);
        Igvm::parse(&file).map(|igvm| igvm.digest(Loader::Qemu).unwrap())
    };
    let first = Igvm::parse(&good).unwrap().digest(Loader::Qemu).unwrap();
    assert_eq!(second(0, 4096), Ok(first));
    assert_eq!(second(1, 4096), Err(IgvmError::Architecture(1)));
    assert_eq!(second(0, 65536), Err(IgvmError::PageSize(65536)));
}

#[test]
fn platforms_are_distinct_and_one_is_sev_snp() {
    let rest = || [policy(1), context(VMSA_GPA, DATA, 0)];
    let platforms = |first: &[Header]| error(&[first, &rest()].concat());
    assert_eq!(platforms(&[]), IgvmError::Mask("GUEST_POLICY"));
    assert_eq!(platforms(&[platform(1, 3)]), IgvmError::NoSnp);
    assert_eq!(error(&[]), IgvmError::NoSnp);
    for second in [
        platform(2, 2),
        platform(1, 3),
        platform(0, 3),
        platform(6, 3),
    ] {
        let declared = platforms(&[platform(1, 2), second]);
        assert_eq!(declared, IgvmError::Platforms);
    }
    let later = changed(platform(1, 2), 6, 2);
    assert_eq!(platforms(&[later]), IgvmError::PlatformVersion(2));
    let late = with(&[platform(2, 3)]);
    assert_eq!(error(&late), IgvmError::HeaderOrder("SUPPORTED_PLATFORM"));
}

#[test]
fn headers_that_loaders_may_take_differently_are_refused() {
    let unknown = error(&with(&[(0x3ff, vec![0; 8])]));
    assert_eq!(unknown, IgvmError::UnknownHeader(0x3ff));
    let reserved = error(&with(&[(0x306, Vec::new())]));
    assert_eq!(reserved, IgvmError::UnknownHeader(0x306));
    let optional = 1 << 31;
    let (kind, value) = page(0x1000, DATA, 0, 0);
    let known = error(&with(&[(kind | optional, value)]));
    assert_eq!(known, IgvmError::OptionalHeader("PAGE_DATA"));
    let passed_over = file(&with(&[(0x3ff | optional, vec![0; 5])]));
    assert!(Igvm::parse(&passed_over).is_ok());
    for (kind, bytes, name) in [
        (0x102, 48, "RELOCATABLE_REGION"),
        (0x103, 32, "PAGE_TABLE_RELOCATION_REGION"),
    ] {
        let region = changed((kind, vec![0; bytes]), 0, 1);
        let headers = [platform(1, 2), region, policy(1)];
        assert_eq!(error(&headers), IgvmError::Relocatable(name));
    }
}

#[test]
fn structures_of_another_size_or_with_reserved_bits_are_refused() {
    let cases = [
        (PLATFORM, "SUPPORTED_PLATFORM"),
        (POLICY, "GUEST_POLICY"),
        (AREA, "PARAMETER_AREA"),
        (PAGE, "PAGE_DATA"),
        (INSERT, "PARAMETER_INSERT"),
        (CONTEXT, "VP_CONTEXT"),
        (ID_BLOCK, "SNP_ID_BLOCK"),
        (VP_COUNT, "VP_COUNT_PARAMETER"),
    ];
    for (kind, name) in cases {
        for bytes in [0, 7, 25, 1000] {
            let headers = [platform(1, 2), (kind, vec![0; bytes])];
            assert_eq!(error(&headers), IgvmError::HeaderSize(name), "{bytes}");
        }
    }
    let reserved = [
        (changed(policy(1), 12, 1), "GUEST_POLICY"),
        (changed(page(0x1000, 0, 0, 0), 22, 1), "PAGE_DATA"),
        (page(0x1000, 0, 8, 0), "PAGE_DATA"),
        (changed(context(0, DATA, 0), 18, 1), "VP_CONTEXT"),
    ];
    for (header, name) in reserved {
        assert_eq!(error(&[platform(1, 2), header]), IgvmError::Reserved(name));
    }
}

#[test]
fn pages_must_be_whole_in_place_and_alone() {
    let refused = |pages: &[Header]| error(&with(pages));
    assert_eq!(
        refused(&[page(0x1001, 0, 0, 0)]),
        IgvmError::Address(0x1001)
    );
    assert_eq!(
        refused(&[page(1 << 52, 0, 0, 0)]),
        IgvmError::Address(1 << 52)
    );
    assert_eq!(refused(&[page(0, 0, 1, 0)]), IgvmError::LargePage(0));
    let unknown = IgvmError::PageType { gpa: 0, kind: 4 };
    assert_eq!(refused(&[page(0, 0, 0, 4)]), unknown);
    let shared_secrets = IgvmError::PageType { gpa: 0, kind: 1 };
    assert_eq!(refused(&[page(0, 0, 4, 1)]), shared_secrets);
    // Data among the headers, half beyond the file, and beyond all of it.
    let end = u32::try_from(file(&with(&[page(0, 0, 0, 0)])).len()).unwrap();
    for offset in [1, 24, end - 4095, end, u32::MAX] {
        let outside = refused(&[page(0, offset, 0, 0)]);
        assert_eq!(outside, IgvmError::DataOffset(offset));
    }
    let last = file(&with(&[page(0, end - 4096, 0, 0)]));
    assert!(Igvm::parse(&last).is_ok());
    // The same address twice: pages, a page and parameters, a page and a state.
    let twice = [page(0x1000, DATA, 0, 0), page(0x1000, 0, 0, 1)];
    assert_eq!(refused(&twice), IgvmError::Duplicate(0x1000));
    let overlap = [
        area(0x2000, 0, 0),
        insert(0x1000, 0),
        page(0x2000, DATA, 0, 0),
    ];
    assert_eq!(refused(&overlap), IgvmError::Duplicate(0x2000));
    let on_state = [page(VMSA_GPA, DATA, 0, 0)];
    assert_eq!(refused(&on_state), IgvmError::Duplicate(VMSA_GPA));
}

#[test]
fn masks_name_declared_platforms() {
    for mask in [0, 2, 3] {
        let other = changed(page(0, 0, 0, 0), 8, mask);
        assert_eq!(error(&with(&[other])), IgvmError::Mask("PAGE_DATA"));
    }
    // What is for another platform is not judged and not measured.
    let elsewhere = changed(page(0x1001, 0, 0, 9), 8, 2);
    let platforms = [platform(1, 2), platform(2, 0), policy(1), elsewhere];
    let state = [context(VMSA_GPA, DATA, 0)];
    let bytes = file(&[&platforms[..], &state].concat());
    assert!(Igvm::parse(&bytes).is_ok());
}

#[test]
fn parameter_areas_are_declared_bounded_and_inserted_once() {
    let refused = |headers: &[Header]| error(&with(headers));
    let undeclared = IgvmError::ParameterArea(0);
    assert_eq!(refused(&[insert(0x1000, 0)]), undeclared);
    assert_eq!(refused(&[area(4096, 0, 0), area(4096, 0, 0)]), undeclared);
    let twice = [area(4096, 0, 0), insert(0x1000, 0), insert(0x2000, 0)];
    assert_eq!(refused(&twice), undeclared);
    let late = (VP_COUNT, fields(&[(0, 4), (0, 4)]));
    let inserted = [area(4096, 0, 0), insert(0x1000, 0), late];
    assert_eq!(refused(&inserted), undeclared);
    let beyond = (VP_COUNT, fields(&[(0, 4), (4096, 4)]));
    assert_eq!(
        refused(&[area(4096, 0, 0), beyond]),
        IgvmError::ParameterOffset(0)
    );
    for bytes in [0, 4095, u64::MAX] {
        let size = IgvmError::ParameterAreaSize { index: 0, bytes };
        assert_eq!(refused(&[area(bytes, 0, 0)]), size);
    }
    assert_eq!(refused(&[area(4096, 0, 24)]), IgvmError::DataOffset(24));
    // An insertion of 2^52 pages must not be counted out.
    let huge = 1 << 52;
    for bytes in [huge, (1 << 24) + 4096] {
        let bomb = [area(bytes, 0, 0), insert(0x1000, 0)];
        assert_eq!(refused(&bomb), IgvmError::TooLarge);
    }
    // Each area may be as large, all together not.
    let limit = 1 << 24;
    let two = [
        area(limit, 0, 0),
        insert(limit, 0),
        area(4096, 1, 0),
        insert(0x1000, 1),
    ];
    assert_eq!(refused(&two), IgvmError::TooLarge);
    assert!(Igvm::parse(&file(&with(&two[..2]))).is_ok());
    let last_page = (1 << 52) - 4096;
    let over_the_end = [area(0x2000, 0, 0), insert(last_page, 0)];
    assert_eq!(refused(&over_the_end), IgvmError::Address(1 << 52));
}

#[test]
fn there_is_one_policy_and_one_state_for_each_processor() {
    let state = |index| context(VMSA_GPA, DATA, index);
    let platform = || platform(1, 2);
    assert_eq!(error(&[platform(), state(0)]), IgvmError::NoPolicy);
    let two = [platform(), policy(1), policy(1), state(0)];
    assert_eq!(error(&two), IgvmError::Twice("GUEST_POLICY"));
    let states = |states: &[Header]| error(&[&[platform(), policy(1)], states].concat());
    assert_eq!(states(&[]), IgvmError::NoContext(0));
    assert_eq!(states(&[state(1)]), IgvmError::NoContext(0));
    assert_eq!(states(&[state(2), state(0)]), IgvmError::NoContext(1));
    assert_eq!(
        states(&[state(0), state(0)]),
        IgvmError::DuplicateContext(0)
    );
    let empty = context(VMSA_GPA, 0, 0);
    assert_eq!(states(&[empty]), IgvmError::DataOffset(0));
}

#[test]
fn an_id_block_that_loaders_cannot_pass_on_is_refused() {
    let block = |edits: &[(usize, u8)]| {
        let mut value = vec![0; 696];
        for (at, byte) in [(0, 1), (88, 1), (96, 1)].iter().chain(edits) {
            value[*at] = *byte;
        }
        (ID_BLOCK, value)
    };
    let good = file(&with(&[block(&[])]));
    assert!(Igvm::parse(&good).unwrap().id_block().is_some());
    // Version, author key said to be there and not, padding.
    for edit in [
        (88, 2),
        (4, 1),
        (4, 2),
        (100, 1),
        (5, 1),
        (252, 1),
        (548, 1),
    ] {
        assert_eq!(
            error(&with(&[block(&[edit])])),
            IgvmError::IdBlock,
            "{edit:?}"
        );
    }
    let two = with(&[block(&[]), block(&[])]);
    assert_eq!(error(&two), IgvmError::Twice("SNP_ID_BLOCK"));
}

#[test]
fn more_pages_than_a_gibibyte_are_refused() {
    let pages: Vec<Header> = (0..1 << 18)
        .map(|number| page(number << 12, DATA, 0, 0))
        .collect();
    assert_eq!(error(&with(&pages)), IgvmError::TooLarge);
}
