//! The chain of digests over the pages that a VM starts with.
//!
//! Each page added replaces the launch digest by SHA-384 of a `PAGE_INFO` structure that
//! holds the digest so far (AMD 56860, section 8.17, `SNP_LAUNCH_UPDATE`, table "PAGE_INFO").

use crate::{bytes::put, digest::Sha384Digest};

/// Size of a page.
pub const PAGE_BYTES: usize = 4096;

/// A page's content.
pub type Page = [u8; PAGE_BYTES];

/// Size of `PAGE_INFO`, which is also in it.
const PAGE_INFO_BYTES: usize = 0x70;
const _: () = assert!(PAGE_INFO_BYTES == 48 + 48 + 2 + 1 + 1 + 3 + 1 + 8);

/// A page as the secure processor sees it.
#[derive(Clone, Copy)]
pub(crate) enum Measured<'a> {
    /// Content that is part of the digest.
    Normal(&'a Page),
    /// A virtual processor's first state.
    Vmsa(&'a Page),
    /// Zeros; the processor clears the page itself.
    Zero,
    /// Content that is not part of the digest; that it is there, is.
    Unmeasured,
    /// Keys that the processor puts there.
    Secrets,
    /// CPUID values that the processor checks.
    Cpuid,
}

impl Measured<'_> {
    fn page_type(self) -> u8 {
        match self {
            Self::Normal(_) => 1,
            Self::Vmsa(_) => 2,
            Self::Zero => 3,
            Self::Unmeasured => 4,
            Self::Secrets => 5,
            Self::Cpuid => 6,
        }
    }

    fn contents(self) -> Sha384Digest {
        match self {
            Self::Normal(page) | Self::Vmsa(page) => Sha384Digest::of(page),
            Self::Zero | Self::Unmeasured | Self::Secrets | Self::Cpuid => {
                Sha384Digest::new([0; 48])
            }
        }
    }
}

/// A launch digest in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) Sha384Digest);

impl Chain {
    /// What `SNP_LAUNCH_START` begins with.
    pub(crate) const START: Self = Self(Sha384Digest::new([0; 48]));

    /// The digest after one more page at a guest physical address.
    pub(crate) fn page(self, gpa: u64, page: Measured<'_>) -> Self {
        let mut info = [0; PAGE_INFO_BYTES];
        put(&mut info, 0, self.0.as_bytes());
        put(&mut info, 48, page.contents().as_bytes());
        put(&mut info, 96, &[0x70, 0, page.page_type()]);
        put(&mut info, 104, &gpa.to_le_bytes());
        Self(Sha384Digest::of(&info))
    }

    /// The digest after consecutive pages.
    pub(crate) fn pages<'a>(self, gpa: u64, pages: impl IntoIterator<Item = Measured<'a>>) -> Self {
        let addresses = (gpa..).step_by(PAGE_BYTES);
        let numbered = addresses.zip(pages);
        numbered.fold(self, |chain, (gpa, page)| chain.page(gpa, page))
    }
}
