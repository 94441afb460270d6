//! The firmware image: which pages it asks for, and where processors start.
//!
//! OVMF ends with a table of GUIDs that the VMM reads backwards from 32 bytes before the end.
//! Four of its entries matter: where SNP wants which pages, where the hashes of a kernel go,
//! where application processors start, and the table's own footer.
//!
//! Whoever measures chose the firmware, but may have been given a file that is not one: every
//! offset and size is checked, and the number of pages is bounded.

use crate::{
    bytes::{array_at, u16_at, u32_at},
    digest::Sha384Digest,
    guid::Guid,
    page::{Chain, Measured, PAGE_BYTES},
};

const FOOTER: Guid = Guid::new(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
const SEV_METADATA: Guid = Guid::new(0xdc88_6566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
const RESET_VECTOR: Guid = Guid::new(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);
const HASH_TABLE: Guid = Guid::new(0x7255_371f, 0x3a3b, 0x4b04, 0x927b_1da6_efa8_d454);

/// What follows the footer: the reset vector.
const AFTER_FOOTER: usize = 32;
/// A `u16` size and a GUID end each entry.
const ENTRY_OVERHEAD: usize = 2 + 16;
/// The image ends where 32-bit addresses end.
pub(crate) const TOP: u64 = 1 << 32;
/// QEMU refuses larger ones (`FLASH_SIZE_LIMIT`).
const MAX_IMAGE_BYTES: usize = 8 << 20;
const MAX_SECTIONS: u32 = 64;
/// 64 MiB; OVMF asks for 128 KiB.
const MAX_SECTION_PAGES: u64 = 1 << 14;

/// Firmware, as far as it is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    sections: Vec<Section>,
    ap_reset_eip: Option<u32>,
    hash_table_gpa: Option<u32>,
    image: Sha384Digest,
}

/// Pages that the firmware asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Guest physical address of the first.
    pub gpa: u32,
    /// How many.
    pub pages: u32,
    /// Which.
    pub kind: SectionKind,
}

/// Kinds of pages that firmware asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Zeroed memory.
    Zeroed,
    /// The secrets page.
    Secrets,
    /// The CPUID page.
    Cpuid,
    /// The calling area of a service module; zeroed.
    SvsmCallingArea,
    /// Hashes of kernel, initrd and command line.
    KernelHashes,
}

/// Why a file is not firmware that can be measured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FirmwareError {
    /// Not a whole number of pages, or too many.
    #[error("has {0} bytes, firmware has whole pages and at most 8 MiB")]
    Size(usize),
    /// No table at the end.
    #[error("ends without the table of GUIDs that OVMF has")]
    NoTable,
    /// The table or an entry in it claims more bytes than there are.
    #[error("has a table of GUIDs whose sizes do not fit")]
    Table,
    /// The table has the same entry twice.
    #[error("has the same entry twice in its table of GUIDs")]
    Duplicate,
    /// No metadata for SNP.
    #[error("has no SEV metadata: it was built without support for SEV-SNP")]
    NoMetadata,
    /// The metadata is not what it should be.
    #[error("has SEV metadata that is cut short or of an unknown version")]
    Metadata,
    /// A section of a kind that this program does not know.
    #[error("asks for a section of the unknown type {0:#x}")]
    SectionKind(u32),
    /// A section that is not whole pages, or too many.
    #[error(
        "asks for a section at {gpa:#x} of {bytes:#x} bytes, sections are whole pages and at most 64 MiB together"
    )]
    SectionSize {
        /// Where.
        gpa: u32,
        /// How much.
        bytes: u32,
    },
}

impl Firmware {
    /// Reads a firmware image, such as `OVMF.amdsev.fd`.
    ///
    /// # Errors
    ///
    /// When it is not firmware for SEV-SNP.
    pub fn parse(image: &[u8]) -> Result<Self, FirmwareError> {
        if image.is_empty()
            || image.len() > MAX_IMAGE_BYTES
            || !image.len().is_multiple_of(PAGE_BYTES)
        {
            return Err(FirmwareError::Size(image.len()));
        }
        let (pages, _) = image.as_chunks::<PAGE_BYTES>();
        let gpa = TOP - image.len() as u64;
        let chain = Chain::START.pages(gpa, pages.iter().map(Measured::Normal));
        Self::parse_tail(image, chain.0)
    }

    /// Reads the end of an image whose pages were measured before: `image` is the launch
    /// digest after all of them and before anything else.
    ///
    /// # Errors
    ///
    /// When it is not the end of firmware for SEV-SNP.
    pub fn parse_tail(tail: &[u8], image: Sha384Digest) -> Result<Self, FirmwareError> {
        let table = Table::find(tail)?;
        let offset = table.number(SEV_METADATA)?;
        let sections = read_sections(tail, offset.ok_or(FirmwareError::NoMetadata)?)?;
        Ok(Self {
            sections,
            ap_reset_eip: table.number(RESET_VECTOR)?,
            // Builds without the table have the entry with a zero address and size.
            hash_table_gpa: table.number(HASH_TABLE)?.filter(|gpa| *gpa != 0),
            image,
        })
    }

    /// The pages it asks for, in the order of its table.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Where application processors start.
    #[must_use]
    pub fn ap_reset_eip(&self) -> Option<u32> {
        self.ap_reset_eip
    }

    /// Where it looks for the hashes of the kernel.
    #[must_use]
    pub fn hash_table_gpa(&self) -> Option<u32> {
        self.hash_table_gpa
    }

    /// The launch digest after the image's pages.
    #[must_use]
    pub fn image_digest(&self) -> Sha384Digest {
        self.image
    }
}

/// The table's entries: data ‖ `u16` size of all three ‖ GUID, the last one first.
struct Table<'a>(Vec<(Guid, &'a [u8])>);

impl<'a> Table<'a> {
    fn find(image: &'a [u8]) -> Result<Self, FirmwareError> {
        let end = image.len().checked_sub(AFTER_FOOTER);
        let start = end.and_then(|end| end.checked_sub(ENTRY_OVERHEAD));
        let start = start.ok_or(FirmwareError::NoTable)?;
        if array_at(image, start + 2).map(Guid) != Some(FOOTER) {
            return Err(FirmwareError::NoTable);
        }
        let total = u16_at(image, start).map_or(0, usize::from);
        let mut rest = total
            .checked_sub(ENTRY_OVERHEAD)
            .and_then(|entries| start.checked_sub(entries))
            .and_then(|first| image.get(first..start))
            .ok_or(FirmwareError::Table)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (before, guid, data) = last_entry(rest).ok_or(FirmwareError::Table)?;
            entries.push((guid, data));
            rest = before;
        }
        Ok(Self(entries))
    }

    /// The `u32` that an entry begins with. An entry that stands twice could be read
    /// differently by the VMM.
    fn number(&self, wanted: Guid) -> Result<Option<u32>, FirmwareError> {
        let mut found = self.0.iter().filter(|(guid, _)| *guid == wanted);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some((_, data)), None) => u32_at(data, 0).map(Some).ok_or(FirmwareError::Table),
            (Some(_), Some(_)) => Err(FirmwareError::Duplicate),
        }
    }
}

fn last_entry(table: &[u8]) -> Option<(&[u8], Guid, &[u8])> {
    let guid_at = table.len().checked_sub(16)?;
    let size_at = guid_at.checked_sub(2)?;
    let guid = Guid(array_at(table, guid_at)?);
    let size = usize::from(u16_at(table, size_at)?);
    let start = table.len().checked_sub(size)?;
    let data = table.get(start..size_at)?;
    (size >= ENTRY_OVERHEAD).then_some((table.get(..start)?, guid, data))
}

fn read_sections(image: &[u8], from_end: u32) -> Result<Vec<Section>, FirmwareError> {
    let start = usize::try_from(from_end)
        .ok()
        .and_then(|distance| image.len().checked_sub(distance))
        .ok_or(FirmwareError::Metadata)?;
    let header = image.get(start..).ok_or(FirmwareError::Metadata)?;
    let (size, version, count) = (u32_at(header, 4), u32_at(header, 8), u32_at(header, 12));
    if array_at(header, 0) != Some(*b"ASEV") || version != Some(1) {
        return Err(FirmwareError::Metadata);
    }
    let count = count
        .filter(|count| *count <= MAX_SECTIONS)
        .ok_or(FirmwareError::Metadata)?;
    if size.is_none_or(|size| size < 16 + 12 * count) {
        return Err(FirmwareError::Metadata);
    }
    let mut total_pages = 0;
    let mut sections = Vec::new();
    for index in 0..count as usize {
        let section = read_section(header, 16 + 12 * index)?;
        total_pages += u64::from(section.pages);
        if total_pages > MAX_SECTION_PAGES {
            let bytes = section.pages * 4096;
            let gpa = section.gpa;
            return Err(FirmwareError::SectionSize { gpa, bytes });
        }
        sections.push(section);
    }
    Ok(sections)
}

fn read_section(header: &[u8], at: usize) -> Result<Section, FirmwareError> {
    let number = |offset| u32_at(header, at + offset).ok_or(FirmwareError::Metadata);
    let (gpa, bytes, kind) = (number(0)?, number(4)?, number(8)?);
    let kind = match kind {
        1 => SectionKind::Zeroed,
        2 => SectionKind::Secrets,
        3 => SectionKind::Cpuid,
        4 => SectionKind::SvsmCallingArea,
        0x10 => SectionKind::KernelHashes,
        unknown => return Err(FirmwareError::SectionKind(unknown)),
    };
    let whole = gpa % 4096 == 0 && bytes % 4096 == 0 && bytes > 0;
    if !whole || gpa.checked_add(bytes).is_none() {
        return Err(FirmwareError::SectionSize { gpa, bytes });
    }
    let pages = bytes / 4096;
    Ok(Section { gpa, pages, kind })
}

#[cfg(test)]
mod tests;
