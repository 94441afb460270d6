//! The launch digest of a file under a loader.

use std::{fmt, str::FromStr};

use super::{Igvm, page_list::Filling};
use crate::{
    digest::Sha384Digest,
    launch::VMSA_GPA,
    page::{Chain, Measured, PAGE_BYTES, Page},
};

const ZEROS: Page = [0; PAGE_BYTES];

/// Who loads a file; the digests differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loader {
    /// One that follows the definitions: everything in the order of the file, and a page
    /// without data is a normal page of zeros.
    FileOrder,
    /// QEMU with KVM.
    Qemu,
}

/// A text is not the name of a loader.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a loader: give qemu or file-order")]
pub struct ParseLoaderError(String);

impl Loader {
    /// Every loader.
    pub const ALL: [Self; 2] = [Self::Qemu, Self::FileOrder];

    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FileOrder => "file-order",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Loader {
    type Err = ParseLoaderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|loader| loader.name() == text);
        found.ok_or_else(|| ParseLoaderError(text.to_owned()))
    }
}

/// Why a file has no digest under QEMU.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoaderError {
    /// KVM has processors' states at one address only.
    #[error(
        "has a VP context at {0:#x}, QEMU takes them at {VMSA_GPA:#x} only: measure for the loader that it is made for"
    )]
    ContextAddress(u64),
    /// QEMU adds parameters ahead of pages that stand before them.
    #[error(
        "inserts parameters at {0:#x} behind pages, which QEMU measures in another order than the file has"
    )]
    ParametersBehindPages(u64),
    /// QEMU does not know shared pages and measures them.
    #[error("has a page at {0:#x} that is shared with the host, which QEMU does not know")]
    Shared(u64),
}

impl Igvm<'_> {
    /// The launch digest of a VM with as many processors as the file has states for.
    ///
    /// QEMU gives each further processor the state after a reset, which is measured and in no
    /// file: start as many as [`Igvm::processors`].
    ///
    /// # Errors
    ///
    /// When the loader refuses the file, or what it measures does not follow from the file.
    pub fn digest(&self, loader: Loader) -> Result<Sha384Digest, LoaderError> {
        match loader {
            Loader::FileOrder => Ok(self.in_file_order()),
            Loader::Qemu => self.under_qemu(),
        }
    }

    fn in_file_order(&self) -> Sha384Digest {
        let chain = self.entries.iter().fold(Chain::START, |chain, entry| {
            let measured = match entry.filling {
                Filling::Shared => None,
                Filling::Zeros => Some(Measured::Normal(&ZEROS)),
                filling => measured(filling),
            };
            measured.map_or(chain, |page| chain.page(entry.gpa, page))
        });
        chain.0
    }

    fn under_qemu(&self) -> Result<Sha384Digest, LoaderError> {
        let mut chain = Chain::START;
        let mut states = Vec::new();
        let mut pages_began = false;
        for entry in &self.entries {
            match entry.filling {
                Filling::Processor(..) if entry.gpa != VMSA_GPA => {
                    return Err(LoaderError::ContextAddress(entry.gpa));
                }
                Filling::Processor(index, state) => states.push((index, state)),
                Filling::Parameters if pages_began => {
                    return Err(LoaderError::ParametersBehindPages(entry.gpa));
                }
                Filling::Shared => return Err(LoaderError::Shared(entry.gpa)),
                filling => {
                    pages_began |= filling != Filling::Parameters;
                    let page = measured(filling);
                    chain = page.map_or(chain, |page| chain.page(entry.gpa, page));
                }
            }
        }
        states.sort_unstable_by_key(|(index, _)| *index);
        let last = states.iter().fold(chain, |chain, (_, state)| {
            chain.page(VMSA_GPA, Measured::Vmsa(state))
        });
        Ok(last.0)
    }
}

/// The page as the secure processor sees it, where loaders agree or the processor has a type of
/// its own for it.
fn measured(filling: Filling<'_>) -> Option<Measured<'_>> {
    match filling {
        Filling::Data(page) => Some(Measured::Normal(page)),
        Filling::Zeros => Some(Measured::Zero),
        Filling::Unmeasured | Filling::Parameters => Some(Measured::Unmeasured),
        Filling::Secrets => Some(Measured::Secrets),
        Filling::Cpuid => Some(Measured::Cpuid),
        Filling::Processor(_, state) => Some(Measured::Vmsa(state)),
        Filling::Shared => None,
    }
}
