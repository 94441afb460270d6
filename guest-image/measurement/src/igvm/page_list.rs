//! The pages of a file in its order, and the checks that need all of them.

use super::IgvmError;
use crate::page::{PAGE_BYTES, Page};

/// 1 GiB; an OVMF image with its pages has 4 MiB, AKS's images some 60 MiB.
const MAX_PAGES: usize = 1 << 18;
/// 16 MiB; known files have a few pages.
const MAX_PARAMETER_PAGES: usize = 1 << 12;
/// Physical addresses have 52 bits.
const ADDRESS_END: u64 = 1 << 52;

/// A page that the loader adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) gpa: u64,
    pub(super) filling: Filling<'a>,
}

/// What is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filling<'a> {
    /// The file's data.
    Data(&'a Page),
    /// No data: zeros.
    Zeros,
    /// Data that is not measured.
    Unmeasured,
    /// Data that the host sees, which the secure processor is never shown.
    Shared,
    /// A page of a parameter area, filled by the loader.
    Parameters,
    /// The secrets page.
    Secrets,
    /// The CPUID page.
    Cpuid,
    /// The first state of a processor.
    Processor(u16, &'a Page),
}

/// Entries in the making.
#[derive(Default)]
pub(super) struct PageList<'a> {
    entries: Vec<Entry<'a>>,
    parameter_pages: usize,
}

/// An address, if it is one of a page.
pub(super) fn page_address(gpa: u64) -> Result<u64, IgvmError> {
    let aligned = gpa.is_multiple_of(PAGE_BYTES as u64) && gpa < ADDRESS_END;
    aligned.then_some(gpa).ok_or(IgvmError::Address(gpa))
}

impl<'a> PageList<'a> {
    pub(super) fn push(&mut self, gpa: u64, filling: Filling<'a>) -> Result<(), IgvmError> {
        if self.entries.len() == MAX_PAGES {
            return Err(IgvmError::TooLarge);
        }
        let gpa = page_address(gpa)?;
        self.entries.push(Entry { gpa, filling });
        Ok(())
    }

    /// Adds the pages of a parameter area.
    pub(super) fn push_parameters(&mut self, gpa: u64, pages: u64) -> Result<(), IgvmError> {
        let pages = usize::try_from(pages)
            .ok()
            .filter(|pages| *pages <= MAX_PARAMETER_PAGES - self.parameter_pages)
            .ok_or(IgvmError::TooLarge)?;
        self.parameter_pages += pages;
        // The first address is checked before the others are computed from it.
        let addresses = (page_address(gpa)?..).step_by(PAGE_BYTES);
        for gpa in addresses.take(pages) {
            self.push(gpa, Filling::Parameters)?;
        }
        Ok(())
    }

    /// The entries and the number of processors, if no two are in each other's place.
    pub(super) fn finish(self) -> Result<(Vec<Entry<'a>>, u16), IgvmError> {
        let mut indices = Vec::new();
        let mut pages = Vec::with_capacity(self.entries.len());
        let mut states = Vec::new();
        for entry in &self.entries {
            match entry.filling {
                Filling::Processor(index, _) => {
                    indices.push(index);
                    states.push(entry.gpa);
                }
                _ => pages.push(entry.gpa),
            }
        }
        // All states may be at one address, which is then none that the guest has memory at.
        states.sort_unstable();
        states.dedup();
        pages.append(&mut states);
        pages.sort_unstable();
        let mut neighbours = pages.windows(2);
        if let Some([gpa, _]) = neighbours.find(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(IgvmError::Duplicate(*gpa));
        }
        Ok((self.entries, count(indices)?))
    }
}

/// How many processors these indices are, if they are all from 0 on.
fn count(mut indices: Vec<u16>) -> Result<u16, IgvmError> {
    indices.sort_unstable();
    let mut expected = 0_u16;
    for index in indices {
        if index < expected {
            return Err(IgvmError::DuplicateContext(index));
        }
        if index > expected {
            return Err(IgvmError::NoContext(expected));
        }
        // The 65,536th would be a file of processors that no VMM starts.
        expected = expected.checked_add(1).ok_or(IgvmError::TooLarge)?;
    }
    if expected == 0 {
        return Err(IgvmError::NoContext(0));
    }
    Ok(expected)
}
