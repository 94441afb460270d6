//! Files written by the `igvm` crate, with every kind of page that SEV-SNP knows.

use guest_image_measurement::igvm::{Igvm, Loader, LoaderError};
use igvm::{
    Arch, IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader,
    IgvmRevision, snp_defs::SevVmsa,
};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags,
    IgvmPageDataType, IgvmPlatformType,
};

use crate::{
    model::{CPUID, NORMAL, Page, SECRETS, UNMEASURED, VMSA, ZERO, filled, launch_digest},
    raw,
};

const SNP: u32 = 4;
const NATIVE: u32 = 1;
const BOTH: u32 = SNP | NATIVE;
const VMSA_GPA: u64 = 0xffff_ffff_f000;
const POLICY: u64 = 0x3_001f;

fn platform(mask: u32, platform_type: IgvmPlatformType) -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: mask,
        highest_vtl: 0,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: 0,
    })
}

fn page(mask: u32, gpa: u64, kind: IgvmPageDataType, byte: Option<u8>) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: mask,
        flags: IgvmPageDataFlags::new(),
        data_type: kind,
        data: byte.map(filled).unwrap_or_default(),
    }
}

fn flagged(gpa: u64, byte: u8, flags: IgvmPageDataFlags) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: SNP,
        flags,
        data_type: IgvmPageDataType::NORMAL,
        data: filled(byte),
    }
}

/// A state as the crate reads it from a file written byte by byte, with `RIP` for the index.
fn state(index: u16) -> Box<SevVmsa> {
    let file = IgvmFile::new_from_binary(&raw::file(&raw::with(&[])), None).unwrap();
    let Some(IgvmDirectiveHeader::SnpVpContext { vmsa, .. }) = file.directives().last() else {
        panic!("the last directive is the state");
    };
    let mut state = vmsa.clone();
    state.rip = 0x1000 + u64::from(index);
    state
}

fn state_bytes(index: u16) -> Vec<u8> {
    let mut bytes = filled(raw::DATA_BYTE);
    let rip = 0x1000 + u64::from(index);
    bytes[0x178..0x180].copy_from_slice(&rip.to_le_bytes());
    bytes
}

fn context(index: u16) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::SnpVpContext {
        gpa: VMSA_GPA,
        compatibility_mask: SNP,
        vp_index: index,
        vmsa: state(index),
    }
}

fn parameters() -> Vec<IgvmDirectiveHeader> {
    vec![
        IgvmDirectiveHeader::ParameterArea {
            number_of_bytes: 0x2000,
            parameter_area_index: 7,
            initial_data: Vec::new(),
        },
        IgvmDirectiveHeader::VpCount(IGVM_VHS_PARAMETER {
            parameter_area_index: 7,
            byte_offset: 8,
        }),
        IgvmDirectiveHeader::MemoryMap(IGVM_VHS_PARAMETER {
            parameter_area_index: 7,
            byte_offset: 0x1000,
        }),
        IgvmDirectiveHeader::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: 0x10_0000,
            compatibility_mask: SNP,
            parameter_area_index: 7,
        }),
    ]
}

/// Every page but shared ones, one of another platform, and the processors' states in the
/// midst of them.
fn directives() -> Vec<IgvmDirectiveHeader> {
    let mut all = parameters();
    all.extend([
        page(BOTH, 0x2000, IgvmPageDataType::NORMAL, Some(0xa1)),
        page(NATIVE, 0x2000, IgvmPageDataType::NORMAL, Some(0xff)),
        page(SNP, 0x1000, IgvmPageDataType::NORMAL, None),
        context(1),
        flagged(0x9000, 0xa2, IgvmPageDataFlags::new().with_unmeasured(true)),
        page(SNP, 0x4000, IgvmPageDataType::SECRETS, None),
        page(SNP, 0x5000, IgvmPageDataType::CPUID_DATA, Some(0xa3)),
        page(SNP, 0x6000, IgvmPageDataType::CPUID_XF, None),
        IgvmDirectiveHeader::RequiredMemory {
            gpa: 0x20_0000,
            compatibility_mask: SNP,
            number_of_bytes: 0x1000,
            vtl2_protectable: false,
        },
        context(0),
        // The same data as before: the file holds it once.
        page(SNP, 0x7000, IgvmPageDataType::NORMAL, Some(0xa1)),
    ]);
    all
}

fn written(revision: IgvmRevision, directives: Vec<IgvmDirectiveHeader>) -> Vec<u8> {
    let platforms = vec![
        platform(NATIVE, IgvmPlatformType::NATIVE),
        platform(SNP, IgvmPlatformType::SEV_SNP),
    ];
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: POLICY,
        compatibility_mask: SNP,
    };
    let file = IgvmFile::new(revision, platforms, vec![policy], directives).unwrap();
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).unwrap();
    bytes
}

fn revisions() -> [IgvmRevision; 2] {
    let second = IgvmRevision::V2 {
        arch: Arch::X64,
        page_size: 4096,
    };
    [IgvmRevision::V1, second]
}

fn in_file_order() -> Vec<Page> {
    vec![
        (UNMEASURED, 0x10_0000, Vec::new()),
        (UNMEASURED, 0x10_1000, Vec::new()),
        (NORMAL, 0x2000, filled(0xa1)),
        (NORMAL, 0x1000, filled(0)),
        (VMSA, VMSA_GPA, state_bytes(1)),
        (UNMEASURED, 0x9000, Vec::new()),
        (SECRETS, 0x4000, Vec::new()),
        (CPUID, 0x5000, Vec::new()),
        (CPUID, 0x6000, Vec::new()),
        (VMSA, VMSA_GPA, state_bytes(0)),
        (NORMAL, 0x7000, filled(0xa1)),
    ]
}

fn under_qemu() -> Vec<Page> {
    let is_state = |page: &Page| page.0 == VMSA;
    let (_, mut pages): (Vec<Page>, Vec<Page>) = in_file_order().into_iter().partition(is_state);
    pages[3] = (ZERO, 0x1000, Vec::new());
    pages.push((VMSA, VMSA_GPA, state_bytes(0)));
    pages.push((VMSA, VMSA_GPA, state_bytes(1)));
    pages
}

#[test]
fn every_kind_of_page_is_measured_as_the_abi_says() {
    for revision in revisions() {
        let file = written(revision, directives());
        let parsed = Igvm::parse(&file).unwrap();
        assert_eq!((parsed.processors(), parsed.policy()), (2, POLICY));
        let measured = |loader| parsed.digest(loader).unwrap().to_string();
        assert_eq!(measured(Loader::FileOrder), launch_digest(&in_file_order()));
        assert_eq!(measured(Loader::Qemu), launch_digest(&under_qemu()));
    }
}

#[test]
fn memory_shared_with_the_host_is_not_measured_and_not_for_qemu() {
    let mut shared = directives();
    let flags = IgvmPageDataFlags::new().with_shared(true);
    shared.push(flagged(0xa000, 0xa4, flags));
    shared.push(IgvmDirectiveHeader::ErrorRange {
        gpa: 0xb000,
        compatibility_mask: SNP,
        size_bytes: 0x1000,
    });
    let file = written(IgvmRevision::V1, shared);
    let parsed = Igvm::parse(&file).unwrap();
    let digest = parsed.digest(Loader::FileOrder).unwrap();
    assert_eq!(digest.to_string(), launch_digest(&in_file_order()));
    let refused = parsed.digest(Loader::Qemu);
    assert_eq!(refused, Err(LoaderError::Shared(0xa000)));
}

#[test]
fn parameters_behind_pages_have_no_certain_digest_under_qemu() {
    let mut late = vec![page(SNP, 0x1000, IgvmPageDataType::NORMAL, Some(1))];
    late.extend(parameters());
    late.push(context(0));
    let file = written(IgvmRevision::V1, late);
    let parsed = Igvm::parse(&file).unwrap();
    let refused = parsed.digest(Loader::Qemu);
    assert_eq!(refused, Err(LoaderError::ParametersBehindPages(0x10_0000)));
    assert!(parsed.digest(Loader::FileOrder).is_ok());
}

#[test]
fn a_state_elsewhere_is_measured_there_and_not_for_qemu() {
    let elsewhere = IgvmDirectiveHeader::SnpVpContext {
        gpa: 0x80_3000,
        compatibility_mask: SNP,
        vp_index: 0,
        vmsa: state(0),
    };
    let file = written(IgvmRevision::V1, vec![elsewhere]);
    let parsed = Igvm::parse(&file).unwrap();
    let digest = parsed.digest(Loader::FileOrder).unwrap();
    let expected = launch_digest(&[(VMSA, 0x80_3000, state_bytes(0))]);
    assert_eq!(digest.to_string(), expected);
    let refused = parsed.digest(Loader::Qemu);
    assert_eq!(refused, Err(LoaderError::ContextAddress(0x80_3000)));
}

/// Where the file is from, and its digest, stands in the vectors' README.
#[test]
fn a_file_of_another_writer_is_measured() {
    let file = include_bytes!("../vectors/ovmf_AmdSev_suffix.igvm");
    let parsed = Igvm::parse(file).unwrap();
    assert_eq!((parsed.processors(), parsed.policy()), (1, 0x3_0000));
    let digest = parsed.digest(Loader::FileOrder).unwrap();
    assert_eq!(
        digest.to_string(),
        "21e9cb1bae34e62af7a92cd330e3ca88ca5d6003ac6263b9aa97f2feb402ef89993e4e67b3e71ab43c86a54633aa3a89"
    );
    assert!(parsed.digest(Loader::Qemu).is_ok());
}
