//! Ed25519ph: Ed25519 over the message's SHA-512 instead of the message (RFC 8032,
//! section 5.1), which is what cosign 3 signs bundles with.
//!
//! *aws-lc-rs* offers Ed25519 alone, so the function of the library below it is called.
//! The message and the signature are hostile, the key is the owner's.

#![expect(
    unsafe_code,
    reason = "a function of C whose buffers have the lengths it expects"
)]

use std::ptr;

/// Whether the signature is this key's over the message, with no context.
pub(super) fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    // SAFETY: the key has 32 bytes and the signature 64, as the function reads them;
    // the message has the length given; without a context its pointer is not followed.
    let verified = unsafe {
        aws_lc_sys::ED25519ph_verify(
            message.as_ptr(),
            message.len(),
            signature.as_ptr(),
            key.as_ptr(),
            ptr::null(),
            0,
        )
    };
    verified == 1
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    /// RFC 8032, section 7.3: public key and signature of `abc`.
    const KEY: &str = "7Bcrk61eVjv0kyxw4SRQNMNUZ+8u/U1k6/gZaDRn4r8=";
    const SIGNATURE: &str =
        "mKcCIvC4Ehqp0w+BPWg/gJ5GK0acf/h2OUmbuU5trkEx+FBCRjwqNVogA9BirfWqoQuMYeY2Biqq0RwqJgg0Bg==";

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        STANDARD.decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_published_signature_is_verified_and_no_other() {
        let (key, mut signature) = (bytes(KEY), bytes(SIGNATURE));
        assert!(verifies(&key, b"abc", &signature));
        assert!(!verifies(&key, b"abd", &signature));
        assert!(!verifies(&key, b"", &signature));
        assert!(!verifies(&[0; 32], b"abc", &signature));
        signature[63] ^= 1;
        assert!(!verifies(&key, b"abc", &signature));
    }
}
