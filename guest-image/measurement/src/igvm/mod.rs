//! IGVM files: what they load, what a genuine VM reports that was started from one, and how to
//! write one for a guest image.
//!
//! An *Independent Guest Virtual Machine* file lists everything that a VM starts with: pages
//! and where they go, the first state of each processor, the guest policy and perhaps a signed
//! ID block. So the launch digest follows from the file alone, whatever the loader is called;
//! whoever has the file can compute it. [`Igvm::parse`] reads any bytes, [`Igvm::digest`]
//! measures, [`compose()`] writes.
//!
//! The format is that of the crates `igvm_defs` and `igvm` (versions 1 and 2 of the fixed
//! header, x86-64, pages of 4 KiB, SEV-SNP). Files come from publishers and are read by owners,
//! so nothing in them is believed: every size, offset, alignment, mask and reserved field is
//! checked, and the work is bounded. A type of header that is not known and not marked as
//! optional is refused, because a loader that knows it would load something else. Relocation
//! and pages of 2 MiB are refused too: with them, loaders may choose what is measured.
//!
//! # Loaders differ
//!
//! The definitions fix the order (that of the file) and the type of each page. QEMU deviates in
//! three ways that show in the digest (`backends/igvm.c`, `target/i386/sev.c`, 10.1 and later),
//! so [`Loader`] has to be named: a page without data is a *zero* page of the secure processor
//! instead of a normal page of zeros; the processors' states are measured last, whatever their
//! place in the file; and parameters are added ahead of pages that precede them. Files whose
//! digest would hang on the last are refused for QEMU, as are those that QEMU itself refuses.
//! Cloud Hypervisor on the Microsoft hypervisor sorts by address, so there the digest is that
//! of [`Loader::FileOrder`] only for files whose addresses ascend, as igvm-tooling writes them.
//!
//! # What a composed file holds, and what not
//!
//! A kernel that is started under SEV-SNP with nothing before it finds no usable memory: only
//! pages that were part of the launch are validated, and a mainline kernel leaves it to
//! firmware to validate the rest (`PVALIDATE`) or to describe it as unaccepted; it finds no
//! ACPI tables, hence one processor and no PCI; and its page tables would have to name the
//! position of the encryption bit, which is the host's. igvm-tooling gets round this with a
//! patched kernel, ACPI tables that are frozen into the file, and the memory map in a parameter
//! page. For the kernel that a guest image here holds, a distribution's, such a file would have
//! a measurement and would not boot. It would also have to be made anew for every amount of
//! memory and every number of processors.
//!
//! So [`compose()`] puts into the file what SEV-SNP's usual direct boot measures: the firmware
//! (`OVMF.amdsev.fd`), the pages it asks for (secrets, CPUID, zeroed memory), the table with the
//! SHA-256 of kernel, initrd and command line, and one state per processor. Kernel, initrd and
//! command line are handed over beside the file, by `-kernel`, `-initrd` and `-append`, and the
//! firmware refuses all but those in the table; it validates memory, installs the ACPI tables,
//! and starts the further processors. The file is thereby equivalent to a launch without it:
//! under QEMU it has **the same launch digest**, which a test proves against the computation
//! that reproduces published digests. No machine with SEV-SNP was at hand: parsers agree on
//! the file and its digest is certain, but it has not been booted.

mod compose;
mod frame;
mod id;
mod measure;
mod page_list;
mod reader;
mod structure;

pub use compose::{ComposeError, Contents, compose};
pub use id::IdBlockError;
use id::SignedIdBlock;
pub use measure::{Loader, LoaderError, ParseLoaderError};
use page_list::Entry;

use crate::id_block::IdBlock;

/// What a file begins with.
pub const IGVM_MAGIC: [u8; 4] = frame::MAGIC;

/// A parsed file, as far as SEV-SNP is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Igvm<'a> {
    entries: Vec<Entry<'a>>,
    processors: u16,
    policy: u64,
    id_block: Option<SignedIdBlock>,
}

impl Igvm<'_> {
    /// How many processors the file has a first state for.
    #[must_use]
    pub fn processors(&self) -> u16 {
        self.processors
    }

    /// The guest policy that the file asks for.
    #[must_use]
    pub fn policy(&self) -> u64 {
        self.policy
    }

    /// The ID block that comes with the file, not yet authenticated: see
    /// [`Igvm::authenticate`].
    #[must_use]
    pub fn id_block(&self) -> Option<&IdBlock> {
        self.id_block.as_ref().map(|signed| &signed.block)
    }
}

/// Why a file is not one that SEV-SNP can be launched from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IgvmError {
    /// It does not begin with `IGVM`.
    #[error("does not begin with the letters IGVM")]
    Magic,
    /// It ends within its fixed header.
    #[error("ends within its fixed header")]
    Truncated,
    /// Neither 1 nor 2.
    #[error("has format version {0}, this program reads 1 and 2")]
    Version(u32),
    /// Not x86-64.
    #[error("is for the architecture {0}, SEV-SNP is x86-64 (0)")]
    Architecture(u32),
    /// Not 4 KiB.
    #[error("has pages of {0} bytes, this program reads files with 4096")]
    PageSize(u32),
    /// The file is longer or shorter than it says.
    #[error("says that it has {stated} bytes but has {found}")]
    Size {
        /// What it says.
        stated: u32,
        /// What it has.
        found: usize,
    },
    /// The variable headers overlap the fixed one, reach beyond the file, or are cut short.
    #[error("has variable headers that do not fit")]
    Headers,
    /// The checksum is wrong.
    #[error("has the checksum {stated:#010x}, its headers give {found:#010x}: it is damaged")]
    Checksum {
        /// What it says.
        stated: u32,
        /// What its headers have.
        found: u32,
    },
    /// A type that is neither known nor optional.
    #[error("needs a loader that knows the header type {0:#x}, which this program does not")]
    UnknownHeader(u32),
    /// A known type marked as optional: loaders would differ.
    #[error("marks a header of type {0} as optional, so that loaders may load different things")]
    OptionalHeader(&'static str),
    /// A header of another size than its type has.
    #[error("has a header of type {0} whose size is not that of the type")]
    HeaderSize(&'static str),
    /// Platforms, initialization and directives are not in this order.
    #[error("has a header of type {0} behind those that must follow it")]
    HeaderOrder(&'static str),
    /// A header for no platform, or for one that was not declared.
    #[error("has a header of type {0} for a platform that it does not declare")]
    Mask(&'static str),
    /// A platform's mask is not one bit of its own, or SEV-SNP stands there twice.
    #[error("declares the same platform or the same platform bit twice, or a mask of several bits")]
    Platforms,
    /// SEV-SNP in another version.
    #[error("is for version {0} of the platform SEV-SNP, this program knows 1")]
    PlatformVersion(u16),
    /// Not for SEV-SNP.
    #[error("is not for SEV-SNP")]
    NoSnp,
    /// A reserved field that is not zero.
    #[error("has a header of type {0} with reserved bits set")]
    Reserved(&'static str),
    /// Relocation: addresses, and so the digest, are the loader's choice.
    #[error("can be relocated ({0}): its launch digest is the loader's choice")]
    Relocatable(&'static str),
    /// A page of 2 MiB.
    #[error("has a page of 2 MiB at {0:#x}, this program measures pages of 4 KiB")]
    LargePage(u64),
    /// A type of page data that is not known.
    #[error("has a page at {gpa:#x} of the unknown type {kind}")]
    PageType {
        /// Where.
        gpa: u64,
        /// Which.
        kind: u16,
    },
    /// An address that is not that of a page, or beyond 52 bits.
    #[error("has a page at {0:#x}, which is not the address of one")]
    Address(u64),
    /// Two pages at one address.
    #[error("has two pages at {0:#x}")]
    Duplicate(u64),
    /// Data that is not in the file or is headers.
    #[error("has data at the offset {0:#x} that is not within its data")]
    DataOffset(u32),
    /// A parameter area that is not declared, declared twice, or used after it was inserted.
    #[error("uses the parameter area {0} before it is declared, twice, or after its insertion")]
    ParameterArea(u32),
    /// A parameter area that is not whole pages.
    #[error("has the parameter area {index} of {bytes} bytes, which is not whole pages")]
    ParameterAreaSize {
        /// Which.
        index: u32,
        /// How large.
        bytes: u64,
    },
    /// A parameter beyond its area.
    #[error("puts a parameter beyond the end of the parameter area {0}")]
    ParameterOffset(u32),
    /// More pages than are measured here.
    #[error("loads more than 1 GiB, or more than 16 MiB of parameters")]
    TooLarge,
    /// No guest policy.
    #[error("has no guest policy for SEV-SNP")]
    NoPolicy,
    /// Two guest policies or two ID blocks.
    #[error("has two headers of type {0} for SEV-SNP")]
    Twice(&'static str),
    /// Two states for one processor.
    #[error("has two VP contexts for the processor {0}")]
    DuplicateContext(u16),
    /// A processor without a state, below one that has one.
    #[error("has no VP context for the processor {0}")]
    NoContext(u16),
    /// An ID block that cannot be given to the secure processor as it stands.
    #[error(
        "has an ID block of another version, or whose author key is neither given nor left out"
    )]
    IdBlock,
}
