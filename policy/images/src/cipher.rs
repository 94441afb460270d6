//! Encrypts one layer as it passes by.
//!
//! Cipher `AES_256_CTR_HMAC_SHA256` of the OCI image encryption draft: AES-256 in
//! counter mode, then HMAC-SHA-256 over the ciphertext under the same key.

use std::io::{self, Write};

use agent_image_registry::Digest;
use agent_keys::LayerKey;
use aws_lc_rs::{
    cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey},
    digest, hmac,
    iv::FixedLength,
    rand::{SecureRandom, SystemRandom},
};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::SealError;

/// A multiple of the block; what is encrypted stays in the first-level cache.
const PIECE_BYTES: usize = 8 * 1024;
/// The cipher asks for room up to the end of the last block.
const BLOCK_BYTES: usize = 16;

/// A sink that writes ciphertext, and remembers what it takes to read it.
pub(super) struct Encrypting {
    draft: NamedTempFile,
    symkey: Zeroizing<[u8; 32]>,
    nonce: [u8; 16],
    cipher: StreamingEncryptingKey,
    mac: hmac::Context,
    plain: digest::Context,
    plain_name: &'static str,
    stored: digest::Context,
    size: u64,
    buffer: Vec<u8>,
}

/// An encrypted layer.
pub(super) struct Encrypted {
    pub(super) draft: NamedTempFile,
    pub(super) key: LayerKey,
    /// Of the ciphertext.
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Of the layer before encryption.
    pub(super) inner: Digest,
}

impl Encrypting {
    /// With a key and nonce never used before, for a layer of this digest's algorithm.
    pub(super) fn new(draft: NamedTempFile, like: &Digest) -> Result<Self, SealError> {
        let random = SystemRandom::new();
        let (mut symkey, mut nonce) = (Zeroizing::new([0; 32]), [0; 16]);
        random.fill(&mut *symkey).map_err(|_| SealError::Random)?;
        random.fill(&mut nonce).map_err(|_| SealError::Random)?;
        Ok(Self::with_key(draft, like, symkey, nonce))
    }

    fn with_key(
        draft: NamedTempFile,
        like: &Digest,
        symkey: Zeroizing<[u8; 32]>,
        nonce: [u8; 16],
    ) -> Self {
        let (plain_name, algorithm) = match like.as_str().split_once(':') {
            Some(("sha384", _)) => ("sha384", &digest::SHA384),
            Some(("sha512", _)) => ("sha512", &digest::SHA512),
            _ => ("sha256", &digest::SHA256),
        };
        Self {
            cipher: counter_mode(&symkey, nonce),
            mac: hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*symkey)),
            plain: digest::Context::new(algorithm),
            plain_name,
            stored: digest::Context::new(&digest::SHA256),
            size: 0,
            buffer: vec![0; PIECE_BYTES + BLOCK_BYTES],
            draft,
            symkey,
            nonce,
        }
    }

    /// All that was written is encrypted now.
    pub(super) fn finish(self) -> Encrypted {
        let mut mac = [0; 32];
        mac.copy_from_slice(self.mac.sign().as_ref());
        let digest = |name: &str, context: digest::Context| {
            Digest::parse(&format!("{name}:{}", hex::encode(context.finish())))
                .expect("a hash in hexadecimal is a digest")
        };
        let inner = digest(self.plain_name, self.plain);
        Encrypted {
            digest: digest("sha256", self.stored),
            key: LayerKey {
                symkey: self.symkey,
                nonce: self.nonce,
                hmac: mac,
                digest: Some(inner.to_string()),
            },
            inner,
            size: self.size,
            draft: self.draft,
        }
    }
}

impl Write for Encrypting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        self.plain.update(bytes);
        let sealed = self.cipher.less_safe_update(bytes, &mut self.buffer);
        let sealed = sealed.expect("counter mode has room for each piece");
        self.mac.update(sealed.written());
        self.stored.update(sealed.written());
        self.draft.write_all(sealed.written())?;
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

fn counter_mode(symkey: &[u8; 32], nonce: [u8; 16]) -> StreamingEncryptingKey {
    UnboundCipherKey::new(&AES_256, symkey)
        .and_then(|key| {
            let nonce = EncryptionContext::Iv128(FixedLength::from(nonce));
            StreamingEncryptingKey::less_safe_ctr(key, nonce)
        })
        .expect("any 32 bytes are a key, and any 16 a counter block")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer of this project's own: key 00…1f, nonce f0…ff; see `agent/keys/tests/vectors`.
    #[test]
    fn the_known_layer_encrypts_to_the_known_bytes() {
        let symkey: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let nonce: [u8; 16] = std::array::from_fn(|n| 0xf0 + u8::try_from(n).unwrap());
        let draft = NamedTempFile::new().unwrap();
        let like = Digest::sha256(b"");
        let mut layer = Encrypting::with_key(draft, &like, symkey.into(), nonce);
        layer.write_all(b"coco layer ").unwrap();
        layer.write_all(b"vector 1\n").unwrap();
        let layer = layer.finish();
        let stored = std::fs::read(layer.draft.path()).unwrap();
        assert_eq!(
            hex::encode(&stored),
            "f16faee203fae1b23f1bc6222551177bb87f4a4a"
        );
        assert_eq!(
            hex::encode(layer.key.hmac),
            "45be0c65d67b604b4df909da2b097cd17ac766fb0bdf20b95c3692f14593d787"
        );
        assert_eq!((layer.size, layer.digest), (20, Digest::sha256(&stored)));
        assert_eq!(layer.inner, Digest::sha256(b"coco layer vector 1\n"));
    }

    #[test]
    fn no_two_layers_share_a_key_or_nonce() {
        let make = || Encrypting::new(NamedTempFile::new().unwrap(), &Digest::sha256(b""));
        let (one, other) = (make().unwrap().finish(), make().unwrap().finish());
        assert_ne!(*one.key.symkey, *other.key.symkey);
        assert_ne!(one.key.nonce, other.key.nonce);
    }
}
