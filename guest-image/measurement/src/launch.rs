//! A launch: all that is measured, in the order in which the VMM adds it.

use crate::{
    digest::Sha384Digest,
    firmware::{Firmware, Section, SectionKind},
    kernel_hashes::KernelHashes,
    page::{Chain, Measured},
    vcpu::VcpuSignature,
    vmsa::{BOOT_EIP, SevFeatures, Vmm, vmsa_page},
};

/// Where VMSA pages are said to be.
const VMSA_GPA: u64 = 0xffff_ffff_f000;

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

    fn further_vmsa(&self) -> Option<crate::page::Page> {
        let eip = self.firmware.ap_reset_eip()?;
        Some(vmsa_page(self.vmm, eip, self.signature, self.features))
    }

    fn before_processors(&self) -> Result<Chain, MeasureError> {
        let mut chain = Chain(self.firmware.image_digest());
        let sections = self.firmware.sections();
        let is_cpuid = |section: &&Section| section.kind == SectionKind::Cpuid;
        let (late, early): (Vec<&Section>, Vec<&Section>) = match self.vmm {
            Vmm::Qemu => (Vec::new(), sections.iter().collect()),
            // EC2 adds the CPUID page after all others.
            Vmm::Ec2 => sections.iter().partition(is_cpuid),
        };
        let mut has_place = false;
        for section in early.into_iter().chain(late) {
            has_place |= section.kind == SectionKind::KernelHashes;
            chain = self.section(chain, *section)?;
        }
        if self.kernel.is_some() && !has_place {
            return Err(MeasureError::NoHashTable);
        }
        Ok(chain)
    }

    fn section(&self, chain: Chain, section: Section) -> Result<Chain, MeasureError> {
        let gpa = u64::from(section.gpa);
        let repeated = |page| std::iter::repeat_n(page, section.pages as usize);
        match (section.kind, self.kernel) {
            (SectionKind::KernelHashes, Some(kernel)) => {
                let table = self.firmware.hash_table_gpa();
                let table = table.ok_or(MeasureError::NoHashTable)?;
                let page = usize::try_from(table % 4096)
                    .ok()
                    .filter(|_| section.pages == 1 && table / 4096 == section.gpa / 4096)
                    .and_then(|offset| kernel.page(offset))
                    .ok_or(MeasureError::HashTablePlace(table))?;
                Ok(chain.page(gpa, Measured::Normal(&page)))
            }
            (SectionKind::Secrets, _) => Ok(chain.pages(gpa, repeated(Measured::Secrets))),
            (SectionKind::Cpuid, _) => Ok(chain.pages(gpa, repeated(Measured::Cpuid))),
            (SectionKind::Zeroed | SectionKind::SvsmCallingArea | SectionKind::KernelHashes, _) => {
                Ok(chain.pages(gpa, repeated(Measured::Zero)))
            }
        }
    }
}
