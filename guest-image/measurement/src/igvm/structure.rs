//! The structures of variable headers: which there are, how long they are, and where each
//! says for which platforms it is meant.
//!
//! From the public definitions of the format (`igvm_defs` 0.5). The high bit of a type says
//! that a loader may pass over a structure it does not know.

/// When set, a loader that does not know the type passes over the structure.
pub(super) const OPTIONAL: u32 = 1 << 31;

pub(super) const SUPPORTED_PLATFORM: u32 = 0x001;
pub(super) const GUEST_POLICY: u32 = 0x101;
pub(super) const RELOCATABLE_REGION: u32 = 0x102;
pub(super) const PAGE_TABLE_RELOCATION: u32 = 0x103;
pub(super) const PARAMETER_AREA: u32 = 0x301;
pub(super) const PAGE_DATA: u32 = 0x302;
pub(super) const PARAMETER_INSERT: u32 = 0x303;
pub(super) const VP_CONTEXT: u32 = 0x304;
pub(super) const SNP_ID_BLOCK: u32 = 0x30b;

/// What `IGVM_VHS_SUPPORTED_PLATFORM` says for SEV-SNP.
pub(super) const PLATFORM_SEV_SNP: u8 = 2;
pub(super) const PLATFORM_VERSION: u16 = 1;

/// Bits of `IgvmPageDataFlags`.
pub(super) const FLAG_2MB: u32 = 1;
pub(super) const FLAG_UNMEASURED: u32 = 2;
pub(super) const FLAG_SHARED: u32 = 4;

/// Values of `IgvmPageDataType`.
pub(super) const DATA_NORMAL: u16 = 0;
pub(super) const DATA_SECRETS: u16 = 1;
pub(super) const DATA_CPUID: u16 = 2;
pub(super) const DATA_CPUID_XF: u16 = 3;

/// Structures come in this order and never go back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Platform,
    Initialization,
    Directive,
}

/// A type of structure that is known here.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) kind: u32,
    /// Name in the definitions, after `IGVM_VHT_`.
    pub(super) name: &'static str,
    /// Size; `None` for a text.
    pub(super) bytes: Option<usize>,
    /// Where its compatibility mask is; `None` if it is meant for all platforms.
    pub(super) mask_at: Option<usize>,
}

impl Known {
    pub(super) fn find(kind: u32) -> Option<Self> {
        KNOWN.iter().find(|known| known.kind == kind).copied()
    }

    pub(super) fn stage(self) -> Stage {
        match self.kind {
            0..=0x100 => Stage::Platform,
            0x101..=0x200 => Stage::Initialization,
            _ => Stage::Directive,
        }
    }

    /// Whether it only says where in a parameter area the loader puts something.
    pub(super) fn is_parameter(self) -> bool {
        self.stage() == Stage::Directive && self.bytes == Some(PARAMETER_BYTES)
    }
}

const PARAMETER_BYTES: usize = 8;

const fn known(kind: u32, name: &'static str, bytes: usize, mask_at: Option<usize>) -> Known {
    Known {
        kind,
        name,
        bytes: Some(bytes),
        mask_at,
    }
}

const fn parameter(kind: u32, name: &'static str) -> Known {
    known(kind, name, PARAMETER_BYTES, None)
}

/// 0x306 is not among them: the definitions reserve it for a former use.
const KNOWN: [Known; 26] = [
    // Its mask declares a platform instead of naming one.
    known(SUPPORTED_PLATFORM, "SUPPORTED_PLATFORM", 16, None),
    known(GUEST_POLICY, "GUEST_POLICY", 16, Some(8)),
    known(RELOCATABLE_REGION, "RELOCATABLE_REGION", 48, Some(0)),
    known(
        PAGE_TABLE_RELOCATION,
        "PAGE_TABLE_RELOCATION_REGION",
        32,
        Some(0),
    ),
    known(0x104, "CORIM_DOCUMENT", 16, Some(0)),
    known(0x105, "CORIM_SIGNATURE", 16, Some(0)),
    known(0x106, "CCA_POLICY", 32, Some(0)),
    Known {
        kind: 0x107,
        name: "VERSION_STRING",
        bytes: None,
        mask_at: None,
    },
    known(PARAMETER_AREA, "PARAMETER_AREA", 16, None),
    known(PAGE_DATA, "PAGE_DATA", 24, Some(8)),
    known(PARAMETER_INSERT, "PARAMETER_INSERT", 16, Some(8)),
    known(VP_CONTEXT, "VP_CONTEXT", 20, Some(8)),
    known(0x305, "REQUIRED_MEMORY", 24, Some(8)),
    parameter(0x307, "VP_COUNT_PARAMETER"),
    parameter(0x308, "SRAT"),
    parameter(0x309, "MADT"),
    parameter(0x30a, "MMIO_RANGES"),
    known(SNP_ID_BLOCK, "SNP_ID_BLOCK", 696, Some(0)),
    parameter(0x30c, "MEMORY_MAP"),
    known(0x30d, "ERROR_RANGE", 16, Some(8)),
    parameter(0x30e, "COMMAND_LINE"),
    parameter(0x30f, "SLIT"),
    parameter(0x310, "PPTT"),
    known(0x311, "VBS_MEASUREMENT", 864, Some(0)),
    parameter(0x312, "DEVICE_TREE"),
    parameter(0x313, "ENVIRONMENT_INFO_PARAMETER"),
];
