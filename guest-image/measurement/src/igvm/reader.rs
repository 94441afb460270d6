//! From headers to what SEV-SNP is launched with.

use std::collections::BTreeMap;

use super::{
    Igvm, IgvmError,
    frame::{Frame, Header},
    id::SignedIdBlock,
    page_list::{Filling, PageList, page_address},
    structure::{
        DATA_CPUID, DATA_CPUID_XF, DATA_NORMAL, DATA_SECRETS, FLAG_2MB, FLAG_SHARED,
        FLAG_UNMEASURED, GUEST_POLICY, Known, OPTIONAL, PAGE_DATA, PAGE_TABLE_RELOCATION,
        PARAMETER_AREA, PARAMETER_INSERT, PLATFORM_SEV_SNP, PLATFORM_VERSION, RELOCATABLE_REGION,
        SNP_ID_BLOCK, SUPPORTED_PLATFORM, Stage, VP_CONTEXT,
    },
};
use crate::{
    bytes::{array_at, u16_at, u32_at},
    page::{PAGE_BYTES, Page},
};

impl<'a> Igvm<'a> {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it breaks the format, or holds what cannot be measured: [`IgvmError`] says what.
    pub fn parse(file: &'a [u8]) -> Result<Self, IgvmError> {
        let frame = Frame::parse(file)?;
        let mut reader = Reader::new(&frame);
        for header in frame.headers() {
            reader.header(&header?)?;
        }
        reader.finish()
    }
}

struct Reader<'f, 'a> {
    frame: &'f Frame<'a>,
    stage: Stage,
    /// Bits of all platforms, and types of all platforms.
    declared: u32,
    platforms: Vec<u8>,
    /// The bit of SEV-SNP.
    snp: Option<u32>,
    policy: Option<u64>,
    /// Bytes of each parameter area; zero once it is inserted.
    areas: BTreeMap<u32, u64>,
    pages: PageList<'a>,
    id_block: Option<SignedIdBlock>,
}

/// A field of a structure whose size was checked.
fn field<T>(read: Option<T>, known: Known) -> Result<T, IgvmError> {
    read.ok_or(IgvmError::HeaderSize(known.name))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

impl<'f, 'a> Reader<'f, 'a> {
    fn new(frame: &'f Frame<'a>) -> Self {
        Self {
            frame,
            stage: Stage::Platform,
            declared: 0,
            platforms: Vec::new(),
            snp: None,
            policy: None,
            areas: BTreeMap::new(),
            pages: PageList::default(),
            id_block: None,
        }
    }

    fn header(&mut self, header: &Header<'a>) -> Result<(), IgvmError> {
        let optional = header.kind & OPTIONAL != 0;
        let known = match Known::find(header.kind & !OPTIONAL) {
            None if optional => return Ok(()),
            None => return Err(IgvmError::UnknownHeader(header.kind)),
            Some(known) if optional => return Err(IgvmError::OptionalHeader(known.name)),
            Some(known) => known,
        };
        if known.bytes.is_some_and(|bytes| bytes != header.value.len()) {
            return Err(IgvmError::HeaderSize(known.name));
        }
        if known.stage() < self.stage {
            return Err(IgvmError::HeaderOrder(known.name));
        }
        self.stage = known.stage();
        if self.is_for_snp(known, header.value)? {
            self.structure(known, header.value)
        } else {
            Ok(())
        }
    }

    fn is_for_snp(&self, known: Known, value: &[u8]) -> Result<bool, IgvmError> {
        let Some(mask_at) = known.mask_at else {
            return Ok(true);
        };
        let mask = field(u32_at(value, mask_at), known)?;
        if mask == 0 || mask & !self.declared != 0 {
            return Err(IgvmError::Mask(known.name));
        }
        let snp = self.snp.ok_or(IgvmError::NoSnp)?;
        Ok(mask & snp != 0)
    }

    fn structure(&mut self, known: Known, value: &'a [u8]) -> Result<(), IgvmError> {
        match known.kind {
            SUPPORTED_PLATFORM => self.platform(known, value),
            GUEST_POLICY => self.guest_policy(known, value),
            RELOCATABLE_REGION | PAGE_TABLE_RELOCATION => Err(IgvmError::Relocatable(known.name)),
            PARAMETER_AREA => self.area(known, value),
            PARAMETER_INSERT => self.insert(known, value),
            PAGE_DATA => self.page(known, value),
            VP_CONTEXT => self.context(known, value),
            SNP_ID_BLOCK => {
                let parsed = SignedIdBlock::parse(value).ok_or(IgvmError::IdBlock)?;
                set_once(&mut self.id_block, parsed, known)
            }
            _ if known.is_parameter() => self.parameter(known, value),
            // Memory that must be there, ranges for errors, signatures and texts: none of them
            // is a page of the launch.
            _ => Ok(()),
        }
    }

    fn platform(&mut self, known: Known, value: &[u8]) -> Result<(), IgvmError> {
        let mask = field(u32_at(value, 0), known)?;
        let [_, kind] = field(array_at(value, 4), known)?;
        let version = field(u16_at(value, 6), known)?;
        let is_new = mask & self.declared == 0 && !self.platforms.contains(&kind);
        if !mask.is_power_of_two() || !is_new {
            return Err(IgvmError::Platforms);
        }
        self.declared |= mask;
        self.platforms.push(kind);
        if kind == PLATFORM_SEV_SNP {
            if version != PLATFORM_VERSION {
                return Err(IgvmError::PlatformVersion(version));
            }
            self.snp = Some(mask);
        }
        Ok(())
    }

    fn guest_policy(&mut self, known: Known, value: &[u8]) -> Result<(), IgvmError> {
        let policy = field(u64_at(value, 0), known)?;
        if field(u32_at(value, 12), known)? != 0 {
            return Err(IgvmError::Reserved(known.name));
        }
        set_once(&mut self.policy, policy, known)
    }

    fn area(&mut self, known: Known, value: &[u8]) -> Result<(), IgvmError> {
        let bytes = field(u64_at(value, 0), known)?;
        let index = field(u32_at(value, 8), known)?;
        let offset = field(u32_at(value, 12), known)?;
        if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(IgvmError::ParameterAreaSize { index, bytes });
        }
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        if offset != 0 && self.frame.data(offset, size).is_none() {
            return Err(IgvmError::DataOffset(offset));
        }
        match self.areas.insert(index, bytes) {
            None => Ok(()),
            Some(_) => Err(IgvmError::ParameterArea(index)),
        }
    }

    fn parameter(&mut self, known: Known, value: &[u8]) -> Result<(), IgvmError> {
        let index = field(u32_at(value, 0), known)?;
        let offset = field(u32_at(value, 4), known)?;
        match self.areas.get(&index) {
            None | Some(0) => Err(IgvmError::ParameterArea(index)),
            Some(bytes) if u64::from(offset) >= *bytes => Err(IgvmError::ParameterOffset(index)),
            Some(_) => Ok(()),
        }
    }

    fn insert(&mut self, known: Known, value: &[u8]) -> Result<(), IgvmError> {
        let gpa = field(u64_at(value, 0), known)?;
        let index = field(u32_at(value, 12), known)?;
        let area = self.areas.get_mut(&index);
        let area = area.ok_or(IgvmError::ParameterArea(index))?;
        let bytes = std::mem::take(area);
        if bytes == 0 {
            return Err(IgvmError::ParameterArea(index));
        }
        self.pages.push_parameters(gpa, bytes / PAGE_BYTES as u64)
    }

    fn page(&mut self, known: Known, value: &[u8]) -> Result<(), IgvmError> {
        let gpa = field(u64_at(value, 0), known)?;
        let data = self.page_at(field(u32_at(value, 12), known)?)?;
        let flags = field(u32_at(value, 16), known)?;
        let kind = field(u16_at(value, 20), known)?;
        let reserved = field(u16_at(value, 22), known)?;
        if reserved != 0 || flags & !(FLAG_2MB | FLAG_UNMEASURED | FLAG_SHARED) != 0 {
            return Err(IgvmError::Reserved(known.name));
        }
        if flags & FLAG_2MB != 0 {
            return Err(IgvmError::LargePage(gpa));
        }
        let filling = match kind {
            DATA_NORMAL if flags & FLAG_SHARED != 0 => Filling::Shared,
            DATA_NORMAL if flags & FLAG_UNMEASURED != 0 => Filling::Unmeasured,
            DATA_NORMAL => data.map_or(Filling::Zeros, Filling::Data),
            // Memory that the host sees cannot hold secrets.
            DATA_SECRETS..=DATA_CPUID_XF if flags & FLAG_SHARED != 0 => {
                return Err(IgvmError::PageType { gpa, kind });
            }
            DATA_SECRETS => Filling::Secrets,
            DATA_CPUID | DATA_CPUID_XF => Filling::Cpuid,
            kind => return Err(IgvmError::PageType { gpa, kind }),
        };
        self.pages.push(gpa, filling)
    }

    fn context(&mut self, known: Known, value: &[u8]) -> Result<(), IgvmError> {
        let gpa = page_address(field(u64_at(value, 0), known)?)?;
        let offset = field(u32_at(value, 12), known)?;
        let index = field(u16_at(value, 16), known)?;
        if field(u16_at(value, 18), known)? != 0 {
            return Err(IgvmError::Reserved(known.name));
        }
        let state = self.page_at(offset)?.ok_or(IgvmError::DataOffset(offset))?;
        self.pages.push(gpa, Filling::Processor(index, state))
    }

    /// A page of the file's data; none at the offset zero.
    fn page_at(&self, offset: u32) -> Result<Option<&'a Page>, IgvmError> {
        if offset == 0 {
            return Ok(None);
        }
        let data = self.frame.data(offset, PAGE_BYTES);
        let page = data.and_then(|data| data.try_into().ok());
        page.map(Some).ok_or(IgvmError::DataOffset(offset))
    }

    fn finish(self) -> Result<Igvm<'a>, IgvmError> {
        self.snp.ok_or(IgvmError::NoSnp)?;
        let policy = self.policy.ok_or(IgvmError::NoPolicy)?;
        let (entries, processors) = self.pages.finish()?;
        let id_block = self.id_block.map(|signed| signed.with_policy(policy));
        Ok(Igvm {
            entries,
            processors,
            policy,
            id_block,
        })
    }
}

fn set_once<T>(place: &mut Option<T>, value: T, known: Known) -> Result<(), IgvmError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(IgvmError::Twice(known.name)),
    }
}
