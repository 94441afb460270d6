//! Decryption of encrypted layers: AES-256 in counter mode, with a MAC over the
//! ciphertext.
//!
//! Bytes are decrypted, and even unpacked, before the MAC is known; the layer is
//! of no use until it was found right at the end, like its digests. Format: the
//! OCI image encryption draft, cipher `AES_256_CTR_HMAC_SHA256`.

use agent_image_registry::{Digest, Hasher};
use agent_keys::LayerKey;
use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey},
    iv::FixedLength,
};

use super::{LayerError, twin::Twin};

/// Pieces stay in the first-level cache between the passes; a multiple of the block.
const PIECE_BYTES: usize = 8 * 1024;
/// The cipher asks for room up to the end of the last block.
const BLOCK_BYTES: usize = 16;

/// What happens to a blob's bytes as they arrive.
pub(super) enum Stored {
    Plain(Box<Hasher>),
    Encrypted(Box<Decryption>),
}

pub(super) struct Decryption {
    twin: Twin,
    cipher: StreamingDecryptingKey,
    /// The cipher writes beside what it reads; then both change places.
    plain: Vec<u8>,
    mac: [u8; 32],
    /// The digest before encryption, where one was wrapped that is not checked elsewhere.
    inner: Option<Digest>,
}

impl Stored {
    /// Bytes that are only hashed, like `expected`.
    pub(super) fn plain(expected: &Digest) -> Self {
        Self::Plain(Box::new(expected.hasher()))
    }

    /// Bytes that are hashed like `expected` and decrypted with `key`.
    ///
    /// The digest that may come wrapped with a key is of the layer before encryption; skopeo
    /// takes it before it compresses, so that it may also be that of the `unpacked` layer,
    /// which is checked anyway.
    ///
    /// # Errors
    /// The key comes with a digest that is none.
    pub(super) fn encrypted(
        expected: &Digest,
        unpacked: Option<&Digest>,
        key: &LayerKey,
    ) -> Result<Self, LayerError> {
        let inner = key.digest.as_deref().map(Digest::parse).transpose();
        let inner = inner.map_err(LayerError::InnerDigestText)?;
        let inner = inner.filter(|inner| Some(inner) != unpacked);
        Ok(Self::Encrypted(Box::new(Decryption {
            twin: Twin::new(expected, &key.symkey, inner.as_ref()),
            cipher: counter_mode(&key.symkey, key.nonce),
            plain: Vec::new(),
            mac: key.hmac,
            inner,
        })))
    }

    /// Takes the next bytes in, and leaves them decrypted.
    pub(super) fn update(&mut self, bytes: &mut Vec<u8>) {
        match self {
            Self::Plain(hasher) => hasher.update(bytes),
            Self::Encrypted(decryption) => decryption.update(bytes),
        }
    }

    /// Checks everything that is known at the end; the blob's digest first.
    ///
    /// # Errors
    /// Names the check that failed.
    pub(super) fn finish(self, expected: &Digest) -> Result<(), LayerError> {
        let compare = |found: Digest| {
            if found == *expected {
                return Ok(());
            }
            Err(LayerError::BlobDigest {
                expected: expected.clone(),
                found,
            })
        };
        match self {
            Self::Plain(hasher) => compare(hasher.finish()),
            Self::Encrypted(decryption) => {
                let Decryption {
                    twin, mac, inner, ..
                } = *decryption;
                let hashes = twin.finish();
                compare(hashes.digest)?;
                if !equal(&mac, &hashes.mac) {
                    return Err(LayerError::Mac);
                }
                match inner.zip(hashes.inner) {
                    Some((expected, found)) if expected != found => {
                        Err(LayerError::InnerDigest { expected, found })
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Decryption {
    fn update(&mut self, bytes: &mut Vec<u8>) {
        self.plain.resize(bytes.len() + BLOCK_BYTES, 0);
        let mut room = self.plain.as_mut_slice();
        for piece in bytes.chunks(PIECE_BYTES) {
            let plain = self.cipher.less_safe_update(piece, room);
            let plain = plain.expect("counter mode has room for each piece");
            self.twin.update(piece, plain.written());
            room = room.get_mut(piece.len()..).unwrap_or_default();
        }
        self.plain.truncate(bytes.len());
        std::mem::swap(&mut self.plain, bytes);
    }
}

fn counter_mode(symkey: &[u8; 32], nonce: [u8; 16]) -> StreamingDecryptingKey {
    UnboundCipherKey::new(&AES_256, symkey)
        .and_then(|key| {
            let nonce = DecryptionContext::Iv128(FixedLength::from(nonce));
            StreamingDecryptingKey::ctr(key, nonce)
        })
        .expect("any 32 bytes are a key, and any 16 a counter block")
}

/// Compares in a time that does not tell where two MACs differ.
fn equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter()
        .zip(other)
        .fold(0, |difference, (one, other)| difference | (one ^ other))
        == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(from: u8) -> [u8; N] {
        std::array::from_fn(|index| from + u8::try_from(index).unwrap())
    }

    fn hex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    /// The vector's layer: key 00…1f, nonce f0…ff, `coco layer vector 1` and a line feed.
    fn vector(digest: Option<&str>) -> (LayerKey, Vec<u8>) {
        let hmac = hex("45be0c65d67b604b4df909da2b097cd17ac766fb0bdf20b95c3692f14593d787")
            .try_into()
            .unwrap();
        let digest = digest.map(str::to_owned);
        let key = LayerKey {
            symkey: bytes(0).into(),
            nonce: bytes(0xf0),
            hmac,
            digest,
        };
        (key, hex("f16faee203fae1b23f1bc6222551177bb87f4a4a"))
    }

    fn decrypt(key: &LayerKey, ciphertext: &[u8]) -> (Vec<u8>, Result<(), LayerError>) {
        let expected = Digest::sha256(ciphertext);
        let mut stored =
            Stored::encrypted(&expected, Some(&Digest::sha256(b"unpacked")), key).unwrap();
        let (mut bytes, mut tail) = (ciphertext[..7].to_vec(), ciphertext[7..].to_vec());
        stored.update(&mut bytes);
        stored.update(&mut tail);
        bytes.append(&mut tail);
        (bytes, stored.finish(&expected))
    }

    const INNER: &str = "sha256:cdbded7330ea0b06634d3bae570699b4b34fcfefb12380581e83c85ae7702524";

    #[test]
    fn the_vector_decrypts_and_its_mac_and_digest_match() {
        for digest in [None, Some(INNER)] {
            let (key, ciphertext) = vector(digest);
            let (plain, result) = decrypt(&key, &ciphertext);
            assert_eq!(plain, b"coco layer vector 1\n");
            assert!(result.is_ok());
        }
    }

    #[test]
    fn changed_ciphertext_mac_and_inner_digest_are_each_refused() {
        let (key, mut ciphertext) = vector(None);
        ciphertext[3] ^= 1;
        assert!(matches!(decrypt(&key, &ciphertext).1, Err(LayerError::Mac)));
        let (mut key, ciphertext) = vector(None);
        key.hmac[31] ^= 1;
        assert!(matches!(decrypt(&key, &ciphertext).1, Err(LayerError::Mac)));
        let (key, ciphertext) = vector(Some(&INNER.replace("cdb", "cda")));
        assert!(matches!(
            decrypt(&key, &ciphertext).1,
            Err(LayerError::InnerDigest { .. })
        ));
        let (mut key, ciphertext) = vector(Some(INNER));
        key.nonce[15] ^= 1;
        assert!(matches!(
            decrypt(&key, &ciphertext).1,
            Err(LayerError::InnerDigest { .. })
        ));
        let (key, ciphertext) = vector(Some("md5:0"));
        let expected = Digest::sha256(&ciphertext);
        assert!(Stored::encrypted(&expected, None, &key).is_err());
    }

    #[test]
    fn wrapped_digest_may_be_that_of_the_unpacked_layer() {
        let (key, ciphertext) = vector(Some(Digest::sha256(b"unpacked").as_str()));
        assert!(decrypt(&key, &ciphertext).1.is_ok());
    }
}
