//! Virtual processor types: the CPUID signature that a processor starts with in `RDX`.

use std::{fmt, str::FromStr};

/// Family, model and stepping as CPUID function 1 returns them in `EAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VcpuSignature(u32);

impl VcpuSignature {
    /// From numbers as AMD's documents name them: the family in full, all eight model bits.
    /// Bits that the signature has no room for are dropped, as the processor does.
    #[must_use]
    pub const fn new(family: u32, model: u32, stepping: u32) -> Self {
        let (base, extended) = if family > 15 {
            (15, family - 15)
        } else {
            (family, 0)
        };
        Self(
            (extended & 0xff) << 20
                | (model >> 4 & 0xf) << 16
                | base << 8
                | (model & 0xf) << 4
                | (stepping & 0xf),
        )
    }

    /// The number itself, for processors that QEMU passes through (`-cpu host`).
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl fmt::Display for VcpuSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// QEMU's processor models with SEV-SNP. Versions of a model (`EPYC-Milan-v2`) differ in
/// features that are not measured, so they are one model here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VcpuModel {
    /// First generation.
    Epyc,
    /// Second generation.
    Rome,
    /// Third generation, the first with SEV-SNP.
    Milan,
    /// Fourth generation.
    Genoa,
    /// Fifth generation.
    Turin,
}

/// A processor model that QEMU does not have, or not with SEV-SNP.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("vCPU type {0:?} is not known: give EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin")]
pub struct ParseVcpuError(String);

impl VcpuModel {
    /// All models, oldest first.
    pub const ALL: [Self; 5] = [
        Self::Epyc,
        Self::Rome,
        Self::Milan,
        Self::Genoa,
        Self::Turin,
    ];

    /// QEMU's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epyc => "EPYC",
            Self::Rome => "EPYC-Rome",
            Self::Milan => "EPYC-Milan",
            Self::Genoa => "EPYC-Genoa",
            Self::Turin => "EPYC-Turin",
        }
    }

    /// What a processor of this model starts with.
    #[must_use]
    pub const fn signature(self) -> VcpuSignature {
        match self {
            Self::Epyc => VcpuSignature::new(23, 1, 2),
            Self::Rome => VcpuSignature::new(23, 49, 0),
            Self::Milan => VcpuSignature::new(25, 1, 1),
            Self::Genoa => VcpuSignature::new(25, 17, 0),
            Self::Turin => VcpuSignature::new(26, 0, 0),
        }
    }
}

impl FromStr for VcpuModel {
    type Err = ParseVcpuError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_model = |model: &Self| text.strip_prefix(model.name()).is_some_and(is_version);
        Self::ALL
            .into_iter()
            .find(is_model)
            .ok_or_else(|| ParseVcpuError(text.to_owned()))
    }
}

/// What QEMU puts behind the name of a model: nothing, `-v` and a digit, or `-IBPB`.
fn is_version(suffix: &str) -> bool {
    let number = suffix.strip_prefix("-v").map(str::as_bytes);
    matches!(number, Some([b'1'..=b'9'])) || matches!(suffix, "" | "-IBPB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_processors() {
        let signatures = VcpuModel::ALL.map(|model| model.signature().raw());
        let expected = [0x80_0f12, 0x83_0f10, 0xa0_0f11, 0xa1_0f10, 0xb0_0f00];
        assert_eq!(signatures, expected);
    }

    #[test]
    fn versions_are_one_model_and_other_names_are_refused() {
        assert_eq!("EPYC-v4".parse(), Ok(VcpuModel::Epyc));
        assert_eq!("EPYC-IBPB".parse(), Ok(VcpuModel::Epyc));
        assert_eq!("EPYC-Milan-v2".parse(), Ok(VcpuModel::Milan));
        for text in [
            "",
            "host",
            "EPYC-",
            "EPYC-Naples",
            "EPYC-v",
            "epyc",
            "EPYC-v44",
        ] {
            assert!(text.parse::<VcpuModel>().is_err(), "{text}");
        }
    }
}
