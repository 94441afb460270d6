//! The ID block: what the owner signs so that the secure processor itself refuses another launch.
//!
//! The host passes a 96-byte block and an authentication page to `SNP_LAUNCH_FINISH`; the
//! launch fails unless the digest and the policy are those in the block and the signatures
//! hold. Digests of the keys appear in every report, so a verifier can ask for "anything that
//! this key signed" instead of a list of launch digests. The block leaves the launch digest
//! itself unchanged.
//!
//! Layouts: AMD 56860, section 8.18, tables "ID_BLOCK" and "ID_AUTH_INFO"; chapter 10 for keys
//! and signatures.

use std::ops::Range;

use aws_lc_rs::rand::SecureRandom;

use crate::{
    bytes::{array_at, put, u32_at},
    digest::Sha384Digest,
    page::{PAGE_BYTES, Page},
};

mod key;

use key::{KEY_BYTES, PublicKey, SIGNATURE_BYTES, Signature, is_zero};
pub use key::{SignError, SigningKey};

/// Size of an ID block.
pub const ID_BLOCK_BYTES: usize = 96;
/// ECDSA on P-384 with SHA-384.
const ALGORITHM_P384: u32 = 1;

/// Offsets in the authentication page.
const BLOCK_SIGNATURE_AT: usize = 0x40;
const ID_KEY_AT: usize = 0x240;
const KEY_SIGNATURE_AT: usize = 0x680;
const AUTHOR_KEY_AT: usize = 0x880;
/// Bytes of the page that must be zero.
const RESERVED: [Range<usize>; 3] = [
    8..BLOCK_SIGNATURE_AT,
    ID_KEY_AT + KEY_BYTES..KEY_SIGNATURE_AT,
    AUTHOR_KEY_AT + KEY_BYTES..PAGE_BYTES,
];
const _: () = assert!(BLOCK_SIGNATURE_AT + SIGNATURE_BYTES == ID_KEY_AT);
const _: () = assert!(ID_KEY_AT + KEY_BYTES <= KEY_SIGNATURE_AT);
const _: () = assert!(KEY_SIGNATURE_AT + SIGNATURE_BYTES == AUTHOR_KEY_AT);

/// What the owner allows to be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// The launch digest.
    pub launch_digest: Sha384Digest,
    /// The owner's own number for a family of guests; appears in reports.
    pub family_id: [u8; 16],
    /// The owner's own number for this guest; appears in reports.
    pub image_id: [u8; 16],
    /// The owner's own version of this guest; appears in reports.
    pub guest_svn: u32,
    /// The guest policy, which the launch must have too.
    pub policy: u64,
}

impl IdBlock {
    /// The block as the host passes it on.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_BYTES] {
        let mut block = [0; ID_BLOCK_BYTES];
        put(&mut block, 0, self.launch_digest.as_bytes());
        put(&mut block, 48, &self.family_id);
        put(&mut block, 64, &self.image_id);
        put(&mut block, 80, &1_u32.to_le_bytes());
        put(&mut block, 84, &self.guest_svn.to_le_bytes());
        put(&mut block, 88, &self.policy.to_le_bytes());
        block
    }
}

/// The authentication page that goes with an ID block.
#[derive(Clone, PartialEq, Eq)]
pub struct IdAuthentication {
    page: Box<Page>,
    id_key: PublicKey,
    author_key: Option<PublicKey>,
}

/// Why an authentication page does not authenticate an ID block.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthenticationError {
    /// Not one page, another algorithm or curve, or bytes where zeros must be.
    #[error("the ID authentication page is not one with ECDSA P-384 keys")]
    Layout,
    /// A signature of other bytes or by another key.
    #[error("a signature in the ID authentication page does not hold")]
    Signature,
}

impl IdAuthentication {
    /// Signs an ID block, and the ID key with the author's key if there is one.
    ///
    /// # Errors
    ///
    /// When there is no randomness.
    pub fn sign(
        block: &IdBlock,
        id_key: &SigningKey,
        author_key: Option<&SigningKey>,
        random: &dyn SecureRandom,
    ) -> Result<Self, SignError> {
        let mut page = Box::new([0; PAGE_BYTES]);
        let public = id_key.public();
        let signature = id_key.sign(&block.to_bytes(), random)?;
        put(page.as_mut(), 0, &ALGORITHM_P384.to_le_bytes());
        put(page.as_mut(), BLOCK_SIGNATURE_AT, &signature.0);
        put(page.as_mut(), ID_KEY_AT, &public.0);
        if let Some(author) = author_key {
            let signature = author.sign(&public.0, random)?;
            put(page.as_mut(), 4, &ALGORITHM_P384.to_le_bytes());
            put(page.as_mut(), KEY_SIGNATURE_AT, &signature.0);
            put(page.as_mut(), AUTHOR_KEY_AT, &author.public().0);
        }
        Ok(Self {
            page,
            id_key: public,
            author_key: author_key.map(SigningKey::public),
        })
    }

    /// Reads a page and checks its signatures over an ID block.
    ///
    /// # Errors
    ///
    /// When the page is not one, or a signature does not hold.
    pub fn verify(page: &[u8], block: &[u8; ID_BLOCK_BYTES]) -> Result<Self, AuthenticationError> {
        let layout = AuthenticationError::Layout;
        let page: &Page = page.try_into().map_err(|_| AuthenticationError::Layout)?;
        let zero = |gap: &Range<usize>| page.get(gap.clone()).is_some_and(is_zero);
        if u32_at(page, 0) != Some(ALGORITHM_P384) || !RESERVED.iter().all(zero) {
            return Err(layout);
        }
        let (id_key, signature) = part(page, ID_KEY_AT, BLOCK_SIGNATURE_AT).ok_or(layout)?;
        id_key.verify(block, &signature)?;
        let (key, signature) = part(page, AUTHOR_KEY_AT, KEY_SIGNATURE_AT).ok_or(layout)?;
        let author_key = match u32_at(page, 4) {
            Some(ALGORITHM_P384) => {
                key.verify(&id_key.0, &signature)?;
                Some(key)
            }
            Some(0) if is_zero(&key.0) && is_zero(&signature.0) => None,
            _ => return Err(layout),
        };
        Ok(Self {
            page: Box::new(*page),
            id_key,
            author_key,
        })
    }

    /// The page as the host passes it on.
    #[must_use]
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// What reports say in `ID_KEY_DIGEST`.
    #[must_use]
    pub fn id_key_digest(&self) -> Sha384Digest {
        self.id_key.digest()
    }

    /// What reports say in `AUTHOR_KEY_DIGEST`: zeros without an author key.
    #[must_use]
    pub fn author_key_digest(&self) -> Sha384Digest {
        let none = Sha384Digest::new([0; 48]);
        self.author_key.map_or(none, |key| key.digest())
    }
}

fn part(page: &Page, key_at: usize, signature_at: usize) -> Option<(PublicKey, Signature)> {
    let key = array_at(page, key_at).map(PublicKey)?;
    let signature = array_at(page, signature_at).map(Signature)?;
    Some((key, signature))
}

#[cfg(test)]
mod tests;
