//! The state in which each virtual processor starts: one measured page per processor.
//!
//! Layout: AMD 24593, appendix B, table "VMCB layout, state save area". Values: what QEMU and
//! KVM set at reset. EC2 leaves some of them at other values; the published digests have zero
//! in its `RDX`, later tools say 0x600, so check a value of EC2 against a report of its own.

use std::str::FromStr;

use crate::{
    bytes::put,
    page::{PAGE_BYTES, Page},
    vcpu::VcpuSignature,
};

/// Where the boot processor starts: the last 16 bytes below 4 GiB.
pub(crate) const BOOT_EIP: u32 = 0xffff_fff0;

/// Features that the host chose for the guest (`SEV_FEATURES` of the VMSA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SevFeatures(u64);

impl SevFeatures {
    /// SEV-SNP and nothing else.
    pub const SNP: Self = Self(0x1);
    /// With debug registers swapped by hardware.
    pub const SNP_DEBUG_SWAP: Self = Self(0x21);

    /// Any other set of bits.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The bits.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// A text is not a hexadecimal number of 64 bits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a hexadecimal number")]
pub struct ParseFeaturesError(String);

impl FromStr for SevFeatures {
    type Err = ParseFeaturesError;

    /// Reads the bits in hexadecimal, with or without `0x`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16)
            .map(Self::from_raw)
            .map_err(|_| ParseFeaturesError(text.to_owned()))
    }
}

/// Who starts the VM; the initial states differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
}

impl Vmm {
    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Ec2 => "ec2",
        }
    }
}

/// The page of a processor that starts at `eip`.
#[must_use]
pub fn vmsa_page(vmm: Vmm, eip: u32, signature: VcpuSignature, features: SevFeatures) -> Page {
    let boot = eip == BOOT_EIP;
    let (cs, ss, tr) = match vmm {
        Vmm::Qemu => (0x9b, 0x93, 0x8b),
        Vmm::Ec2 => (if boot { 0x9a } else { 0x9b }, 0x92, 0x83),
    };
    let mut page = [0; PAGE_BYTES];
    // es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr
    let attributes: [u16; 10] = [0x93, cs, ss, 0x93, 0x93, 0x93, 0, 0x82, 0, tr];
    for (attributes, offset) in attributes.into_iter().zip((0..).step_by(16)) {
        put(&mut page, offset + 2, &attributes.to_le_bytes());
        put(&mut page, offset + 4, &0xffff_u32.to_le_bytes());
    }
    put(&mut page, 0x10, &0xf000_u16.to_le_bytes());
    put(&mut page, 0x18, &u64::from(eip & 0xffff_0000).to_le_bytes());
    let registers: [(usize, u64); 12] = [
        (0x0d0, 0x1000),                  // EFER: SVME
        (0x148, 0x40),                    // CR4: MCE
        (0x158, 0x10),                    // CR0: ET
        (0x160, 0x400),                   // DR7
        (0x168, 0xffff_0ff0),             // DR6
        (0x170, 0x2),                     // RFLAGS
        (0x178, u64::from(eip & 0xffff)), // RIP
        (0x268, 0x0007_0406_0007_0406),   // G_PAT
        (0x310, rdx(vmm, signature)),     // RDX
        (0x3b0, features.0),              // SEV_FEATURES
        (0x3e8, 0x1),                     // XCR0
        (0x150, 0),                       // CR3
    ];
    for (offset, value) in registers {
        put(&mut page, offset, &value.to_le_bytes());
    }
    if vmm == Vmm::Qemu {
        put(&mut page, 0x408, &0x1f80_u32.to_le_bytes());
        put(&mut page, 0x410, &0x037f_u16.to_le_bytes());
    }
    page
}

fn rdx(vmm: Vmm, signature: VcpuSignature) -> u64 {
    match vmm {
        Vmm::Qemu => u64::from(signature.raw()),
        Vmm::Ec2 => 0,
    }
}
