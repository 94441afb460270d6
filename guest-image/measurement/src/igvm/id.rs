//! The directive `IGVM_VHS_SNP_ID_BLOCK`: an ID block and its authentication in a layout of
//! the format's own, which the loader copies into those of the secure processor.
//!
//! The block in the file has no policy: loaders take it from the file's guest policy.

use super::Igvm;
use crate::{
    bytes::{array_at, put, u32_at},
    digest::Sha384Digest,
    id_block::{AuthenticationError, IdAuthentication, IdBlock},
    page::{PAGE_BYTES, Page},
};

/// Size of the directive.
pub(super) const DIRECTIVE_BYTES: usize = 696;

/// Two numbers of 72 bytes: a signature, or the coordinates of a key.
const PAIR: usize = 144;
const VERSION: u32 = 1;

const AUTHOR_KEY_ENABLED_AT: usize = 4;
/// Digest, family and image follow each other as in the ID block.
const IDENTITY_AT: usize = 8;
const VERSION_AT: usize = 88;
const SVN_AT: usize = 92;
const AUTHOR_ALGORITHM_AT: usize = 100;

/// Parts that are the same in the directive and in the authentication page (AMD 56860,
/// table "ID_AUTH_INFO"): from, to, size. A key's curve is followed by four bytes of padding
/// here and by the coordinates there.
const PARTS: [(usize, usize, usize); 8] = [
    (96, 0, 4),
    (AUTHOR_ALGORITHM_AT, 4, 4),
    (104, 0x40, PAIR),
    (248, 0x240, 4),
    (256, 0x244, PAIR),
    (400, 0x680, PAIR),
    (544, 0x880, 4),
    (552, 0x884, PAIR),
];
const _: () = assert!(552 + PAIR == DIRECTIVE_BYTES);

/// An ID block with the page that is to authenticate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedIdBlock {
    pub(super) block: IdBlock,
    page: Box<Page>,
}

/// Why an ID block would not let the VM be launched.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdBlockError {
    /// For another launch.
    #[error("the ID block is for the launch digest {stated}, the file has {found}")]
    OtherDigest {
        /// What it says.
        stated: Sha384Digest,
        /// What the file has.
        found: Sha384Digest,
    },
    /// Not signed.
    #[error("the ID block is not authentic")]
    Authentication(#[from] AuthenticationError),
}

impl Igvm<'_> {
    /// Checks as the secure processor does whether the ID block, if there is one, is for this
    /// launch digest and is signed.
    ///
    /// # Errors
    ///
    /// When the processor would refuse the launch.
    pub fn authenticate(
        &self,
        digest: Sha384Digest,
    ) -> Result<Option<IdAuthentication>, IdBlockError> {
        let Some(signed) = &self.id_block else {
            return Ok(None);
        };
        let stated = signed.block.launch_digest;
        if stated != digest {
            let found = digest;
            return Err(IdBlockError::OtherDigest { stated, found });
        }
        let block = signed.block.to_bytes();
        let authentication = IdAuthentication::verify(signed.page.as_ref(), &block)?;
        Ok(Some(authentication))
    }
}

impl SignedIdBlock {
    /// Reads the directive; `None` unless a loader could pass it on as it stands.
    pub(super) fn parse(directive: &[u8]) -> Option<Self> {
        let algorithm = u32_at(directive, AUTHOR_ALGORITHM_AT)?;
        let author = match array_at(directive, AUTHOR_KEY_ENABLED_AT)? {
            [0, 0, 0, 0] => false,
            [1, 0, 0, 0] => true,
            _ => return None,
        };
        // The directive says twice whether there is an author key.
        if author != (algorithm != 0) || u32_at(directive, VERSION_AT)? != VERSION {
            return None;
        }
        let padding = [252, 548].map(|at| u32_at(directive, at));
        if padding != [Some(0), Some(0)] {
            return None;
        }
        let block = IdBlock {
            launch_digest: Sha384Digest::new(array_at(directive, IDENTITY_AT)?),
            family_id: array_at(directive, IDENTITY_AT + 48)?,
            image_id: array_at(directive, IDENTITY_AT + 64)?,
            guest_svn: u32_at(directive, SVN_AT)?,
            policy: 0,
        };
        let mut page = Box::new([0; PAGE_BYTES]);
        for (from, to, bytes) in PARTS {
            let part = directive.get(from..)?.get(..bytes)?;
            put(page.as_mut(), to, part);
        }
        Some(Self { block, page })
    }

    pub(super) fn with_policy(mut self, policy: u64) -> Self {
        self.block.policy = policy;
        self
    }
}

/// The directive for an ID block.
pub(super) fn directive(
    mask: u32,
    block: &IdBlock,
    authentication: &IdAuthentication,
) -> [u8; DIRECTIVE_BYTES] {
    let mut directive = [0; DIRECTIVE_BYTES];
    let page = authentication.page();
    for (to, from, bytes) in PARTS {
        let part = page.get(from..).and_then(|rest| rest.get(..bytes));
        put(
            &mut directive,
            to,
            part.expect("the parts lie within the page"),
        );
    }
    let author = u32_at(&directive, AUTHOR_ALGORITHM_AT) != Some(0);
    put(&mut directive, 0, &mask.to_le_bytes());
    put(&mut directive, AUTHOR_KEY_ENABLED_AT, &[u8::from(author)]);
    put(&mut directive, IDENTITY_AT, block.launch_digest.as_bytes());
    put(&mut directive, IDENTITY_AT + 48, &block.family_id);
    put(&mut directive, IDENTITY_AT + 64, &block.image_id);
    put(&mut directive, VERSION_AT, &VERSION.to_le_bytes());
    put(&mut directive, SVN_AT, &block.guest_svn.to_le_bytes());
    directive
}
