//! Claims about ID blocks, with the published page and with keys made here.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;

use super::*;

const PUBLISHED_PAGE: &[u8] = include_bytes!("../../tests/vectors/test_auth_block.bin");
const PUBLISHED_SIGNATURE: &[u8] = include_bytes!("../../tests/vectors/test_id_sig.bin");
const PUBLISHED_KEY_SIGNATURE: &[u8] = include_bytes!("../../tests/vectors/test_auth_sig.bin");

fn published_block() -> IdBlock {
    let digest = "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd13d214b35c231715b38e263dc6059745";
    IdBlock {
        launch_digest: digest.parse().unwrap(),
        family_id: [0; 16],
        image_id: [0; 16],
        guest_svn: 0,
        policy: 0x3_0000,
    }
}

fn key() -> SigningKey {
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    let body = BASE64_STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    SigningKey::from_pem(&pem).unwrap()
}

#[test]
fn the_published_page_authenticates_the_published_block() {
    let block = published_block().to_bytes();
    let published = IdAuthentication::verify(PUBLISHED_PAGE, &block).unwrap();
    assert_eq!(
        published.id_key_digest().to_string(),
        "59fb2c686dfa4fef49f38339aa775c90051c28d57383ddc3baf3b5eb4b1496df3b0dbbdcbae5fe27677a644820773fe2"
    );
    assert_eq!(
        published.author_key_digest().to_string(),
        "eed81169fb0cb5e0ec34794f128fd4e0c4a46f67c65a1adfa81fcb24bcc088c272369b7ffc3eb2b6af6a4284a1b36c5f"
    );
    let at = |offset: usize| &PUBLISHED_PAGE[offset..offset + SIGNATURE_BYTES];
    assert_eq!(at(BLOCK_SIGNATURE_AT), PUBLISHED_SIGNATURE);
    assert_eq!(at(KEY_SIGNATURE_AT), PUBLISHED_KEY_SIGNATURE);
}

#[test]
fn a_page_made_here_authenticates_its_block_and_no_other() {
    let random = SystemRandom::new();
    let block = published_block();
    let (id_key, author_key) = (key(), key());
    for author in [None, Some(&author_key)] {
        let made = IdAuthentication::sign(&block, &id_key, author, &random).unwrap();
        let read = IdAuthentication::verify(made.page(), &block.to_bytes()).unwrap();
        assert_eq!(read.id_key_digest(), made.id_key_digest());
        assert_eq!(read.author_key_digest(), made.author_key_digest());
        let zeros = Sha384Digest::new([0; 48]);
        assert_eq!(made.author_key_digest() == zeros, author.is_none());
        let other = IdBlock {
            policy: 0xb_0000,
            ..block
        };
        let refused = IdAuthentication::verify(made.page(), &other.to_bytes());
        assert_eq!(refused.err(), Some(AuthenticationError::Signature));
    }
}

#[test]
fn keys_in_other_forms_are_refused_by_sentence() {
    let refused = |text: &str| SigningKey::from_pem(text).unwrap_err().to_string();
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    assert!(refused(sec1).contains("PKCS#8"));
    let short = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(refused(short).contains("P-384"));
}

#[test]
fn pages_of_another_length_are_refused() {
    let block = published_block().to_bytes();
    for page in [&PUBLISHED_PAGE[1..], &[]] {
        let refused = IdAuthentication::verify(page, &block);
        assert_eq!(refused.err(), Some(AuthenticationError::Layout));
    }
}

proptest! {
    #[test]
    fn a_page_with_any_bit_flipped_is_refused(bit in 0..PAGE_BYTES * 8) {
        let mut page = PUBLISHED_PAGE.to_vec();
        page[bit / 8] ^= 1 << (bit % 8);
        let block = published_block().to_bytes();
        prop_assert!(IdAuthentication::verify(&page, &block).is_err());
    }

    #[test]
    fn a_block_with_any_bit_flipped_is_refused(bit in 0..ID_BLOCK_BYTES * 8) {
        let mut block = published_block().to_bytes();
        block[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(IdAuthentication::verify(PUBLISHED_PAGE, &block).is_err());
    }
}
