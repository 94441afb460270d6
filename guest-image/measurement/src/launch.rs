//! A launch: all that is measured, in the order in which the VMM adds it.

use std::str::FromStr;

use crate::{
    digest::Sha384Digest,
    firmware::{Firmware, Section, SectionKind},
    kernel_hashes::KernelHashes,
    page::{Chain, Measured, Page},
    vcpu::VcpuSignature,
    vmsa::{BOOT_EIP, SevFeatures, Vmm, vmsa_page},
};

/// Where VMSA pages are said to be.
pub(crate) const VMSA_GPA: u64 = 0xffff_ffff_f000;

/// Most processors that QEMU gives a guest (`max_cpus` of the `q35` machine).
pub const MAX_VCPUS: u16 = 4096;

/// How many virtual processors a guest starts with: 1 to [`MAX_VCPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuCount(u16);

impl VcpuCount {
    /// A count from 1 to [`MAX_VCPUS`].
    #[must_use]
    pub const fn new(count: u16) -> Option<Self> {
        if count == 0 || count > MAX_VCPUS {
            None
        } else {
            Some(Self(count))
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Numbers of virtual processors, as people write them: `1-4,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuCounts(Vec<VcpuCount>);

/// A text does not list numbers of processors.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseCountsError {
    /// Not a number, or none that a guest can have.
    #[error("{0:?} is not a number from 1 to {MAX_VCPUS}")]
    Number(String),
    /// A range from more to less.
    #[error("{0:?} ends before it begins")]
    Range(String),
}

impl VcpuCounts {
    /// The numbers, in the order in which they were written.
    #[must_use]
    pub fn as_slice(&self) -> &[VcpuCount] {
        &self.0
    }
}

impl FromStr for VcpuCounts {
    type Err = ParseCountsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut counts = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                let count = text.parse().ok().and_then(VcpuCount::new);
                count.ok_or_else(|| ParseCountsError::Number(text.to_owned()))
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(ParseCountsError::Range(part.to_owned()));
            }
            counts.extend((first.number()..=last.number()).filter_map(VcpuCount::new));
        }
        Ok(Self(counts))
    }
}

/// What a VM starts with.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The firmware.
    pub firmware: &'a Firmware,
    /// The kernel that the VMM hands to the firmware, if it does.
    pub kernel: Option<&'a KernelHashes>,
    /// The type of the virtual processors.
    pub signature: VcpuSignature,
    /// SEV features that the host turned on.
    pub features: SevFeatures,
    /// Who starts it.
    pub vmm: Vmm,
}

/// Pages that the VMM adds for the firmware, from a guest physical address on.
pub(crate) struct Placed {
    pub(crate) gpa: u64,
    pub(crate) content: Content,
}

/// What these pages are; numbers count pages.
pub(crate) enum Content {
    Table(Box<Page>),
    Zero(u32),
    Secrets(u32),
    Cpuid(u32),
}

/// Why a launch has no digest: the VMM would refuse it too.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MeasureError {
    /// A kernel, but firmware that would not check it.
    #[error(
        "the firmware has no place for the kernel's hashes: use a build for direct boot, such as OVMF.amdsev.fd"
    )]
    NoHashTable,
    /// The place is not in the section for it, or the table does not fit.
    #[error(
        "the firmware's place for the kernel's hashes ({0:#x}) is not in the page that it asks for"
    )]
    HashTablePlace(u32),
    /// Several processors, but firmware that says not where they start.
    #[error("the firmware does not say where further processors start: measure one vCPU only")]
    NoResetVector,
}

impl Launch<'_> {
    /// The launch digest with so many virtual processors.
    ///
    /// # Errors
    ///
    /// When the firmware cannot start this kernel or so many processors.
    pub fn digest(&self, vcpus: VcpuCount) -> Result<Sha384Digest, MeasureError> {
        let further = self.further_vmsa();
        if vcpus.0 > 1 && further.is_none() {
            return Err(MeasureError::NoResetVector);
        }
        let last = self.digests()?.nth(usize::from(vcpus.0) - 1);
        Ok(last.map_or(self.firmware.image_digest(), |(_, digest)| digest))
    }

    /// The launch digests with 1, 2, … virtual processors, up to [`MAX_VCPUS`] or to what the
    /// firmware can start. Each costs two hashes more than the one before.
    ///
    /// # Errors
    ///
    /// When the firmware cannot start this kernel.
    pub fn digests(
        &self,
    ) -> Result<impl Iterator<Item = (VcpuCount, Sha384Digest)> + use<>, MeasureError> {
        let before = self.before_processors()?;
        let boot = vmsa_page(self.vmm, BOOT_EIP, self.signature, self.features);
        let first = before.page(VMSA_GPA, Measured::Vmsa(&boot));
        let further = self.further_vmsa();
        let mut chain = Some(first);
        Ok((1..=MAX_VCPUS).map_while(move |count| {
            let current = chain?;
            chain = further.map(|page| current.page(VMSA_GPA, Measured::Vmsa(&page)));
            Some((VcpuCount(count), current.0))
        }))
    }

    /// The state in which every processor but the first starts, if firmware says where.
    pub(crate) fn further_vmsa(&self) -> Option<Page> {
        let eip = self.firmware.ap_reset_eip()?;
        Some(vmsa_page(self.vmm, eip, self.signature, self.features))
    }

    fn before_processors(&self) -> Result<Chain, MeasureError> {
        let image = Chain(self.firmware.image_digest());
        let placed = self.placed()?;
        Ok(placed.iter().fold(image, |chain, placed| {
            let repeated = |page, count: u32| std::iter::repeat_n(page, count as usize);
            match &placed.content {
                Content::Table(page) => chain.page(placed.gpa, Measured::Normal(page)),
                Content::Zero(count) => chain.pages(placed.gpa, repeated(Measured::Zero, *count)),
                Content::Secrets(count) => {
                    chain.pages(placed.gpa, repeated(Measured::Secrets, *count))
                }
                Content::Cpuid(count) => chain.pages(placed.gpa, repeated(Measured::Cpuid, *count)),
            }
        }))
    }

    /// What the VMM adds after the firmware's own pages and before the processors, in order.
    pub(crate) fn placed(&self) -> Result<Vec<Placed>, MeasureError> {
        let sections = self.firmware.sections();
        let is_cpuid = |section: &&Section| section.kind == SectionKind::Cpuid;
        let (late, early): (Vec<&Section>, Vec<&Section>) = match self.vmm {
            Vmm::Qemu => (Vec::new(), sections.iter().collect()),
            // EC2 adds the CPUID page after all others.
            Vmm::Ec2 => sections.iter().partition(is_cpuid),
        };
        let has_place = sections
            .iter()
            .any(|section| section.kind == SectionKind::KernelHashes);
        let ordered = early.into_iter().chain(late);
        let placed = ordered
            .map(|section| {
                let gpa = u64::from(section.gpa);
                let content = self.content(*section)?;
                Ok(Placed { gpa, content })
            })
            .collect::<Result<_, _>>()?;
        if self.kernel.is_some() && !has_place {
            return Err(MeasureError::NoHashTable);
        }
        Ok(placed)
    }

    fn content(&self, section: Section) -> Result<Content, MeasureError> {
        let pages = section.pages;
        match (section.kind, self.kernel) {
            (SectionKind::KernelHashes, Some(kernel)) => {
                let table = self.firmware.hash_table_gpa();
                let table = table.ok_or(MeasureError::NoHashTable)?;
                let page = usize::try_from(table % 4096)
                    .ok()
                    .filter(|_| pages == 1 && table / 4096 == section.gpa / 4096)
                    .and_then(|offset| kernel.page(offset))
                    .ok_or(MeasureError::HashTablePlace(table))?;
                Ok(Content::Table(Box::new(page)))
            }
            (SectionKind::Secrets, _) => Ok(Content::Secrets(pages)),
            (SectionKind::Cpuid, _) => Ok(Content::Cpuid(pages)),
            (SectionKind::Zeroed | SectionKind::SvsmCallingArea | SectionKind::KernelHashes, _) => {
                Ok(Content::Zero(pages))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        let read = |text: &str| {
            let list: VcpuCounts = text.parse().ok()?;
            let numbers = list.as_slice().iter().map(|count| count.number());
            Some(numbers.collect::<Vec<_>>())
        };
        assert_eq!(read("1-3,8"), Some(vec![1, 2, 3, 8]));
        for text in ["", "0", "3-1", "1-", "4097", "a", "1,,2"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
