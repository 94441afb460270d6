//! SHA-256 and HMAC-SHA-256 of the same bytes in one pass, and SHA-256 of what they
//! decrypt to.
//!
//! An encrypted layer's blob is hashed twice: once plainly for its digest, once
//! keyed for its MAC. HMAC hashes one block of key first and the bytes after it,
//! so both hashes see the same 64-byte blocks and share their message schedule;
//! and two chains of rounds, each waiting for itself, fit where one did. With the
//! CPU's SHA instructions the second hash is then nearly free, which no
//! library offers. A third chain, of the bytes that the same piece decrypts to, is not
//! free, but takes half of what a hash by itself does. Other CPUs, and other digests than
//! SHA-256, hash each for itself.

use agent_image_registry::{Digest, Hasher};
use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

/// Hashes a stream both ways.
pub(super) enum Twin {
    #[cfg(target_arch = "x86_64")]
    Fused(Box<x86::Fused>),
    Apart(Box<Apart>),
}

pub(super) struct Apart {
    hasher: Hasher,
    mac: hmac::Context,
    inner: Option<Hasher>,
}

/// What the bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    pub(super) digest: Digest,
    pub(super) mac: [u8; 32],
    /// Of the decrypted bytes, where it was asked for.
    pub(super) inner: Option<Digest>,
}

impl Twin {
    /// For a digest like `expected`, a MAC with `key`, and perhaps a digest like `inner` of
    /// the decrypted bytes.
    pub(super) fn new(expected: &Digest, key: &[u8; 32], inner: Option<&Digest>) -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_sha256(expected)
            && inner.is_none_or(is_sha256)
            && let Some(fused) = x86::Fused::new(key, inner.is_some())
        {
            return Self::Fused(Box::new(fused));
        }
        Self::apart(expected, key, inner)
    }

    fn apart(expected: &Digest, key: &[u8; 32], inner: Option<&Digest>) -> Self {
        let mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        Self::Apart(Box::new(Apart {
            hasher: expected.hasher(),
            mac,
            inner: inner.map(Digest::hasher),
        }))
    }

    /// Takes bytes in, and what they decrypt to.
    pub(super) fn update(&mut self, bytes: &[u8], decrypted: &[u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Fused(fused) => fused.update(bytes, decrypted),
            Self::Apart(apart) => {
                apart.hasher.update(bytes);
                apart.mac.update(bytes);
                if let Some(inner) = &mut apart.inner {
                    inner.update(decrypted);
                }
            }
        }
    }

    pub(super) fn finish(self) -> Hashes {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Fused(fused) => fused.finish(),
            Self::Apart(apart) => {
                let mut mac = [0; 32];
                mac.copy_from_slice(apart.mac.sign().as_ref());
                Hashes {
                    digest: apart.hasher.finish(),
                    mac,
                    inner: apart.inner.map(Hasher::finish),
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_sha256(digest: &Digest) -> bool {
    digest.as_str().starts_with("sha256:")
}

/// The outer half of HMAC (RFC 2104).
fn outer(key: &[u8; 32], inner: &[u8; 32]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&*padded(key, 0x5c));
    context.update(inner);
    let mut mac = [0; 32];
    mac.copy_from_slice(context.finish().as_ref());
    mac
}

fn padded(key: &[u8; 32], pad: u8) -> Zeroizing<[u8; 64]> {
    let mut block = Zeroizing::new([pad; 64]);
    for (byte, key) in block.iter_mut().zip(key) {
        *byte ^= key;
    }
    block
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![expect(
        unsafe_code,
        reason = "CPU instructions that are checked for at run time"
    )]

    use std::arch::x86_64::*;

    use agent_image_registry::Digest;
    use zeroize::Zeroizing;

    use super::{Hashes, outer, padded};

    type State = [u32; 8];

    /// FIPS 180-4, 5.3.3.
    const INITIAL: State = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    /// FIPS 180-4, 4.2.2.
    #[rustfmt::skip]
    const ROUNDS: [u32; 64] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ];

    pub(crate) struct Fused {
        key: Zeroizing<[u8; 32]>,
        /// Of the bytes plainly, of the bytes with the key before them, and of what they
        /// decrypt to.
        states: [State; 3],
        has_inner: bool,
        /// What is no whole block yet, of the bytes and of the decrypted ones.
        tails: [[u8; 64]; 2],
        tail_length: usize,
        total: u64,
    }

    impl Fused {
        /// `None` if this CPU has not the instructions.
        pub(super) fn new(key: &[u8; 32], has_inner: bool) -> Option<Self> {
            let has = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1");
            if !has {
                return None;
            }
            let mut states = [INITIAL; 3];
            let block = padded(key, 0x36);
            // SAFETY: the features were just found.
            unsafe { compress::<false>(&mut states, &*block, &*block) };
            let keyed = states[1];
            Some(Self {
                key: Zeroizing::new(*key),
                states: [INITIAL, keyed, INITIAL],
                has_inner,
                tails: [[0; 64]; 2],
                tail_length: 0,
                total: 0,
            })
        }

        /// Both are equally long.
        pub(super) fn update(&mut self, mut bytes: &[u8], mut decrypted: &[u8]) {
            self.total += bytes.len() as u64;
            if self.tail_length > 0 {
                let taken = bytes.len().min(64 - self.tail_length);
                let (head, rest) = bytes.split_at(taken);
                let (other_head, other_rest) = decrypted.split_at(taken);
                self.keep(head, other_head);
                (bytes, decrypted) = (rest, other_rest);
                if self.tail_length < 64 {
                    return;
                }
                let [block, other] = self.tails;
                self.all(&block, &other);
                self.tail_length = 0;
            }
            let whole = bytes.len() / 64 * 64;
            let (blocks, rest) = bytes.split_at(whole);
            let (others, other_rest) = decrypted.split_at(whole);
            self.all(blocks, others);
            self.keep(rest, other_rest);
        }

        fn keep(&mut self, bytes: &[u8], decrypted: &[u8]) {
            for (tail, bytes) in self.tails.iter_mut().zip([bytes, decrypted]) {
                tail[self.tail_length..][..bytes.len()].copy_from_slice(bytes);
            }
            self.tail_length += bytes.len();
        }

        fn all(&mut self, blocks: &[u8], others: &[u8]) {
            // SAFETY: a value of this type exists only where the features were found.
            unsafe {
                if self.has_inner {
                    compress::<true>(&mut self.states, blocks, others);
                } else {
                    compress::<false>(&mut self.states, blocks, others);
                }
            }
        }

        pub(super) fn finish(self) -> Hashes {
            let [plain, keyed, inner] = self.states;
            // The keyed hash has one block more, so only the length at the end differs.
            let mac = self.end(keyed, self.tails[0], self.total + 64);
            let inner = self.end(inner, self.tails[1], self.total);
            Hashes {
                digest: Digest::of_sha256(self.end(plain, self.tails[0], self.total)),
                mac: outer(&self.key, &mac),
                inner: self.has_inner.then(|| Digest::of_sha256(inner)),
            }
        }

        /// The hash of a stream of this length whose last bytes are these.
        fn end(&self, state: State, tail: [u8; 64], length: u64) -> [u8; 32] {
            let blocks = if self.tail_length < 56 { 1 } else { 2 };
            let mut last = [0u8; 128];
            last[..self.tail_length].copy_from_slice(&tail[..self.tail_length]);
            last[self.tail_length] = 0x80;
            last[blocks * 64 - 8..blocks * 64].copy_from_slice(&(length * 8).to_be_bytes());
            let last = &last[..blocks * 64];
            let mut states = [state, INITIAL, INITIAL];
            // SAFETY: as in `all`.
            unsafe { compress::<false>(&mut states, last, last) };
            let mut bytes = [0; 32];
            for (target, word) in bytes.chunks_exact_mut(4).zip(states[0]) {
                target.copy_from_slice(&word.to_be_bytes());
            }
            bytes
        }
    }

    /// ABEF and CDGH, as the instructions want the state.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn load(state: &State) -> (__m128i, __m128i) {
        let word = |index: usize| state[index].cast_signed();
        let abef = _mm_set_epi32(word(0), word(1), word(4), word(5));
        let cdgh = _mm_set_epi32(word(2), word(3), word(6), word(7));
        (abef, cdgh)
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn store(state: &mut State, abef: __m128i, cdgh: __m128i) {
        let lanes = [
            (0, _mm_extract_epi32::<3>(abef)),
            (1, _mm_extract_epi32::<2>(abef)),
            (4, _mm_extract_epi32::<1>(abef)),
            (5, _mm_extract_epi32::<0>(abef)),
            (2, _mm_extract_epi32::<3>(cdgh)),
            (3, _mm_extract_epi32::<2>(cdgh)),
            (6, _mm_extract_epi32::<1>(cdgh)),
            (7, _mm_extract_epi32::<0>(cdgh)),
        ];
        for (index, value) in lanes {
            state[index] = value.cast_unsigned();
        }
    }

    /// Sixteen bytes of each of the first four rounds, in the order of the words.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn schedule(block: &[u8]) -> [__m128i; 4] {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut schedule = [_mm_setzero_si128(); 4];
        for (words, bytes) in schedule.iter_mut().zip(block.chunks_exact(16)) {
            // SAFETY: the chunk has 16 bytes, and the load needs no alignment.
            *words = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }, swap);
        }
        schedule
    }

    /// The schedule four rounds on. The last three of a block are not used; computing them
    /// keeps the loop regular.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn next([w0, w1, w2, w3]: [__m128i; 4]) -> [__m128i; 4] {
        let mixed = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        [w1, w2, w3, _mm_sha256msg2_epu32(mixed, w3)]
    }

    /// Runs whole blocks through the first two states, and if there is a third one, as many
    /// other blocks through it.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress<const THIRD: bool>(states: &mut [State; 3], blocks: &[u8], others: &[u8]) {
        let [first, second, third] = states;
        let (mut abef1, mut cdgh1) = load(first);
        let (mut abef2, mut cdgh2) = load(second);
        let (mut abef3, mut cdgh3) = load(third);
        for (block, other) in blocks.chunks_exact(64).zip(others.chunks_exact(64)) {
            let before = [abef1, cdgh1, abef2, cdgh2, abef3, cdgh3];
            let (mut words, mut other_words) = (schedule(block), schedule(other));
            for constants in ROUNDS.chunks_exact(4) {
                // SAFETY: the chunk has four words, and the load needs no alignment.
                let constants = unsafe { _mm_loadu_si128(constants.as_ptr().cast()) };
                let low = _mm_add_epi32(words[0], constants);
                let high = _mm_shuffle_epi32::<0x0e>(low);
                cdgh1 = _mm_sha256rnds2_epu32(cdgh1, abef1, low);
                cdgh2 = _mm_sha256rnds2_epu32(cdgh2, abef2, low);
                abef1 = _mm_sha256rnds2_epu32(abef1, cdgh1, high);
                abef2 = _mm_sha256rnds2_epu32(abef2, cdgh2, high);
                words = next(words);
                if THIRD {
                    let low = _mm_add_epi32(other_words[0], constants);
                    cdgh3 = _mm_sha256rnds2_epu32(cdgh3, abef3, low);
                    let high = _mm_shuffle_epi32::<0x0e>(low);
                    abef3 = _mm_sha256rnds2_epu32(abef3, cdgh3, high);
                    other_words = next(other_words);
                }
            }
            abef1 = _mm_add_epi32(abef1, before[0]);
            cdgh1 = _mm_add_epi32(cdgh1, before[1]);
            abef2 = _mm_add_epi32(abef2, before[2]);
            cdgh2 = _mm_add_epi32(cdgh2, before[3]);
            if THIRD {
                abef3 = _mm_add_epi32(abef3, before[4]);
                cdgh3 = _mm_add_epi32(cdgh3, before[5]);
            }
        }
        store(first, abef1, cdgh1);
        store(second, abef2, cdgh2);
        store(third, abef3, cdgh3);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the pieces would decrypt to does not matter here, as long as it differs.
    fn run(mut twin: Twin, pieces: &[Vec<u8>]) -> Hashes {
        for piece in pieces {
            let other: Vec<u8> = piece.iter().map(|byte| byte ^ 0x5a).collect();
            twin.update(piece, &other);
        }
        twin.finish()
    }

    proptest! {
        #[test]
        fn fused_and_separate_hashes_agree(
            key in any::<[u8; 32]>(),
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8),
            has_inner in any::<bool>(),
        ) {
            let like = Digest::sha256(b"");
            let inner = has_inner.then_some(&like);
            prop_assert_eq!(
                run(Twin::new(&like, &key, inner), &pieces),
                run(Twin::apart(&like, &key, inner), &pieces)
            );
        }
    }

    #[test]
    fn other_digests_are_hashed_apart() {
        let sha512 = Digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap();
        let sha256 = Digest::sha256(b"");
        let hashes = run(
            Twin::new(&sha512, &[1; 32], Some(&sha256)),
            &[b"x".to_vec()],
        );
        assert!(hashes.digest.as_str().starts_with("sha512:"));
        let hashes = run(
            Twin::new(&sha256, &[1; 32], Some(&sha512)),
            &[b"x".to_vec()],
        );
        assert!(hashes.inner.unwrap().as_str().starts_with("sha512:"));
    }
}
