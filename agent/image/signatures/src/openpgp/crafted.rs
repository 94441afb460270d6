//! Keys and messages that GnuPG would not make, put together by hand.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};

use super::{
    error::{KeyFlaw, OpenPgpError},
    key::Key,
    keyring::Keyring,
};

const MADE: u32 = 1_717_200_000;
const NOW: u64 = MADE as u64 + 1000;
const USER: &[u8] = b"user";
const FLAGS_SIGN: &[u8] = &[2, 27, 0x02];
const FLAGS_CERTIFY: &[u8] = &[2, 27, 0x01];

/// An Ed25519 key in one of its two encodings.
struct Signer {
    pair: Ed25519KeyPair,
    native: bool,
    body: Vec<u8>,
}

fn signer(native: bool) -> Signer {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let point = pair.public_key().as_ref();
    let mut body = [&[4][..], &MADE.to_be_bytes()].concat();
    if native {
        body.push(27);
    } else {
        body.extend([
            22, 9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01, 1, 7, 0x40,
        ]);
    }
    body.extend_from_slice(point);
    Signer { pair, native, body }
}

fn created(at: u32) -> Vec<u8> {
    [&[5, 2][..], &at.to_be_bytes()].concat()
}

fn expires(kind: u8, after: u32) -> Vec<u8> {
    [&[5, kind][..], &after.to_be_bytes()].concat()
}

fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&[0xc0 | tag, 255][..], &length.to_be_bytes(), body].concat()
}

/// A number of at most 32 bytes, as OpenPGP writes it.
fn mpi(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let rest = &bytes[zeros..];
    let bits = rest
        .first()
        .map_or(0, |first| rest.len() * 8 - first.leading_zeros() as usize);
    [&u16::try_from(bits).unwrap().to_be_bytes()[..], rest].concat()
}

impl Signer {
    fn key(&self) -> Key {
        Key::parse(&self.body).unwrap()
    }

    fn algorithm(&self) -> u8 {
        if self.native { 27 } else { 22 }
    }

    fn issuer(&self) -> Vec<u8> {
        [&[9, 16][..], &self.key().id().to_be_bytes()].concat()
    }

    /// A signature's body over these parts, with these hashed subpackets.
    fn sign(&self, kind: u8, subpackets: &[&[u8]], unhashed: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let area = subpackets.concat();
        let length = u16::try_from(area.len()).unwrap();
        let mut hashed = vec![4, kind, self.algorithm(), 8];
        hashed.extend(length.to_be_bytes());
        hashed.extend(area);
        let trailer = u32::try_from(hashed.len()).unwrap().to_be_bytes();
        let message = [&parts.concat()[..], &hashed, &[4, 0xff], &trailer].concat();
        let hash = digest(&SHA256, &message);
        let proof = self.pair.sign(hash.as_ref());
        let (r, s) = proof.as_ref().split_at(32);
        let numbers = if self.native {
            proof.as_ref().to_vec()
        } else {
            [mpi(r), mpi(s)].concat()
        };
        let unhashed_length = u16::try_from(unhashed.len()).unwrap().to_be_bytes();
        [
            &hashed[..],
            &unhashed_length,
            unhashed,
            &hash.as_ref()[..2],
            &numbers,
        ]
        .concat()
    }

    fn certify(&self, subpackets: &[&[u8]]) -> Vec<u8> {
        let length = u32::try_from(USER.len()).unwrap().to_be_bytes();
        let prefix = [&[0xb4][..], &length, USER].concat();
        packet(
            2,
            &self.sign(
                0x13,
                subpackets,
                &self.issuer(),
                &[&self.key().hashed, &prefix],
            ),
        )
    }

    fn ring(&self, certifications: &[Vec<u8>]) -> Vec<u8> {
        [
            packet(6, &self.body),
            packet(13, USER),
            certifications.concat(),
        ]
        .concat()
    }

    fn plain_ring(&self) -> Vec<u8> {
        self.ring(&[self.certify(&[&created(MADE), FLAGS_SIGN])])
    }

    fn one_pass(&self) -> Vec<u8> {
        let head = [3, 0, 8, self.algorithm()];
        [&head[..], &self.key().id().to_be_bytes(), &[1]].concat()
    }

    fn message_of(&self, signature: &[u8]) -> Vec<u8> {
        Self::announced(&self.one_pass(), signature)
    }

    fn announced(one_pass: &[u8], signature: &[u8]) -> Vec<u8> {
        let literal = [b"b\0", &MADE.to_be_bytes()[..], b"content"].concat();
        [
            packet(4, one_pass),
            packet(11, &literal),
            packet(2, signature),
        ]
        .concat()
    }

    fn message(&self, subpackets: &[&[u8]]) -> Vec<u8> {
        self.message_of(&self.sign(0, subpackets, &self.issuer(), &[b"content"]))
    }

    /// The binding of a subkey by this primary key.
    fn bind(&self, subkey: &Signer, flags: &[u8], embedded: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 2] = [&self.key().hashed, &subkey.key().hashed];
        packet(
            2,
            &self.sign(
                0x18,
                &[&created(MADE), flags, embedded],
                &self.issuer(),
                &parts,
            ),
        )
    }

    /// The subpacket in which a subkey signs its primary key in return.
    fn back(&self, primary: &Signer) -> Vec<u8> {
        let parts: [&[u8]; 2] = [&primary.key().hashed, &self.key().hashed];
        let body = self.sign(0x19, &[&created(MADE)], &self.issuer(), &parts);
        [&[u8::try_from(body.len() + 1).unwrap(), 32][..], &body].concat()
    }
}

fn verify(ring: &[u8], message: &[u8]) -> Result<Vec<u8>, OpenPgpError> {
    Keyring::parse(ring, NOW)?
        .verify(message, NOW)
        .map(|signed| signed.content)
}

fn flaw(ring: &[u8], message: &[u8]) -> KeyFlaw {
    match verify(ring, message) {
        Err(OpenPgpError::Key { flaw, .. }) => flaw,
        other => panic!("{other:?}"),
    }
}

fn assert_unbound(flaw: &KeyFlaw, why: &str) {
    assert!(
        matches!(flaw, KeyFlaw::Unbound(text) if text.contains(why)),
        "{flaw}"
    );
}

#[test]
fn both_encodings_of_ed25519_are_verified() {
    for native in [false, true] {
        let signer = signer(native);
        let message = signer.message(&[&created(MADE)]);
        assert_eq!(verify(&signer.plain_ring(), &message).unwrap(), b"content");
        let other = self::signer(native);
        assert!(matches!(
            verify(&other.plain_ring(), &message),
            Err(OpenPgpError::UnknownKey(_))
        ));
    }
}

#[test]
fn a_key_without_a_valid_signature_by_itself_may_not_sign() {
    let (signer, other) = (signer(false), signer(false));
    let message = signer.message(&[&created(MADE)]);
    assert_unbound(&flaw(&signer.ring(&[]), &message), "no signature by itself");
    let somebody = other.certify(&[&created(MADE), FLAGS_SIGN]);
    assert_unbound(
        &flaw(&signer.ring(&[somebody]), &message),
        "no signature by itself",
    );
    let mut forged = signer.certify(&[&created(MADE), FLAGS_SIGN]);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_unbound(&flaw(&signer.ring(&[forged]), &message), "does not verify");
    let unknown = signer.certify(&[&created(MADE), FLAGS_SIGN, &[2, 0x80 | 99, 0]]);
    assert_unbound(
        &flaw(&signer.ring(&[unknown]), &message),
        "critical subpacket 99",
    );
    let over = signer.certify(&[&created(MADE), FLAGS_SIGN, &expires(3, 10)]);
    assert_unbound(&flaw(&signer.ring(&[over]), &message), "expired");
}

#[test]
fn the_newest_signature_about_a_key_decides() {
    let signer = signer(false);
    let message = signer.message(&[&created(MADE)]);
    let forever = |at| signer.certify(&[&created(at), FLAGS_SIGN]);
    let limited = |at| signer.certify(&[&created(at), FLAGS_SIGN, &expires(9, 100)]);
    let certifying = signer.certify(&[&created(MADE + 2), FLAGS_CERTIFY]);
    verify(&signer.ring(&[limited(MADE), forever(MADE + 1)]), &message).unwrap();
    verify(&signer.ring(&[forever(MADE + 1), limited(MADE)]), &message).unwrap();
    assert!(matches!(
        flaw(&signer.ring(&[forever(MADE), limited(MADE + 1)]), &message),
        KeyFlaw::Expired(_)
    ));
    assert_eq!(
        flaw(&signer.ring(&[forever(MADE), certifying]), &message),
        KeyFlaw::NotForSigning
    );
}

#[test]
fn a_signature_about_the_key_alone_lifts_nothing_that_its_user_id_says() {
    let signer = signer(false);
    let message = signer.message(&[&created(MADE)]);
    let ring = |direct: &[&[u8]], user: &[&[u8]]| {
        let direct = signer.sign(0x1f, direct, &signer.issuer(), &[&signer.key().hashed]);
        [
            packet(6, &signer.body),
            packet(2, &direct),
            packet(13, USER),
            signer.certify(user),
        ]
        .concat()
    };
    let (old, new) = (created(MADE), created(MADE + 1));
    let limit = expires(9, 100);
    verify(&ring(&[&new], &[&old, FLAGS_SIGN]), &message).unwrap();
    for (direct, user) in [
        (&[&new[..]][..], &[&old[..], FLAGS_SIGN, &limit][..]),
        (&[&old[..], &limit][..], &[&new[..], FLAGS_SIGN][..]),
    ] {
        assert!(matches!(
            flaw(&ring(direct, user), &message),
            KeyFlaw::Expired(_)
        ));
    }
    let certifying = ring(&[&new], &[&old, FLAGS_CERTIFY]);
    assert_eq!(flaw(&certifying, &message), KeyFlaw::NotForSigning);
}

#[test]
fn a_revocation_counts_whoever_made_it_and_whether_or_not_it_verifies() {
    let (signer, other) = (signer(false), signer(false));
    let message = signer.message(&[&created(MADE)]);
    for maker in [&signer, &other] {
        let revocation = packet(
            2,
            &maker.sign(0x20, &[&created(MADE)], &maker.issuer(), &[b"anything"]),
        );
        let ring = [
            packet(6, &signer.body),
            revocation,
            packet(13, USER),
            signer.certify(&[&created(MADE), FLAGS_SIGN]),
        ]
        .concat();
        assert_eq!(flaw(&ring, &message), KeyFlaw::Revoked);
    }
    let user_gone = packet(
        2,
        &signer.sign(0x30, &[&created(MADE)], &signer.issuer(), &[b"anything"]),
    );
    let ring = signer.ring(&[signer.certify(&[&created(MADE), FLAGS_SIGN]), user_gone]);
    assert_unbound(&flaw(&ring, &message), "no signature by itself");
}

#[test]
fn a_subkey_must_sign_its_primary_key_in_return() {
    let (primary, subkey, thief) = (signer(false), signer(true), signer(false));
    let message = subkey.message(&[&created(MADE)]);
    let ring = |owner: &Signer, flags: &[u8], back: &[u8]| {
        [
            owner.plain_ring(),
            packet(14, &subkey.body),
            owner.bind(&subkey, flags, back),
        ]
        .concat()
    };
    let back = subkey.back(&primary);
    verify(&ring(&primary, FLAGS_SIGN, &back), &message).unwrap();
    assert_unbound(
        &flaw(&ring(&primary, FLAGS_SIGN, &[]), &message),
        "in return",
    );
    // Somebody claims the subkey for a key of his own.
    assert_unbound(
        &flaw(&ring(&thief, FLAGS_SIGN, &back), &message),
        "does not verify",
    );
    assert_eq!(
        flaw(&ring(&primary, FLAGS_CERTIFY, &back), &message),
        KeyFlaw::NotForSigning
    );
    assert_eq!(
        flaw(&ring(&primary, &[], &back), &message),
        KeyFlaw::NotForSigning
    );
    let unbound = [primary.plain_ring(), packet(14, &subkey.body)].concat();
    assert_unbound(&flaw(&unbound, &message), "did not sign it");
    let foreign = [
        primary.plain_ring(),
        packet(14, &subkey.body),
        thief.bind(&subkey, FLAGS_SIGN, &subkey.back(&thief)),
    ]
    .concat();
    assert_unbound(&flaw(&foreign, &message), "did not sign it");
}

#[test]
fn dates_that_cannot_be_are_refused() {
    let signer = signer(false);
    let ring = signer.plain_ring();
    let refuse = |subpackets: &[&[u8]]| {
        verify(&ring, &signer.message(subpackets))
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(&[&created(MADE - 1)]).contains("before its key was made"));
    assert!(refuse(&[&created(MADE + 10_000)]).contains("in the future"));
    assert!(refuse(&[&created(MADE), &expires(3, 999)]).contains("the signature expired"));
    verify(&ring, &signer.message(&[&created(MADE), &expires(3, 1001)])).unwrap();
    verify(&ring, &signer.message(&[&created(MADE), &expires(3, 0)])).unwrap();
    assert!(refuse(&[]).contains("does not say when"));
    assert!(refuse(&[&created(MADE), &created(MADE)]).contains("given twice"));
    assert!(refuse(&[&created(MADE), &[1, 3]]).contains("too short"));
}

#[test]
fn unhashed_subpackets_change_nothing() {
    let signer = signer(false);
    let sign = |hashed: &[&[u8]], unhashed: &[u8]| {
        let unhashed = [unhashed, &signer.issuer()].concat();
        signer.message_of(&signer.sign(0, hashed, &unhashed, &[b"content"]))
    };
    let ring = signer.plain_ring();
    verify(&ring, &sign(&[&created(MADE)], &expires(3, 1))).unwrap();
    verify(&ring, &sign(&[&created(MADE)], &[2, 0x80 | 99, 0])).unwrap();
    assert!(verify(&ring, &sign(&[], &created(MADE))).is_err());
}

#[test]
fn a_message_must_be_signed_as_it_announces() {
    let (signer, other) = (signer(false), signer(false));
    let ring = signer.plain_ring();
    let signature = signer.sign(0, &[&created(MADE)], &signer.issuer(), &[b"content"]);
    assert!(
        verify(&ring, &other.message_of(&signature))
            .unwrap_err()
            .to_string()
            .contains("not the one announced")
    );
    let mut one_pass = signer.one_pass();
    assert!(verify(&ring, &Signer::announced(&one_pass, &signature)).is_ok());
    for (announcement, words) in [
        (&one_pass[..4], "announces the signature has no key id"),
        (&one_pass[..11], "announces the signature has no key id"),
        (&one_pass[..12], "not the one announced"),
    ] {
        let error = verify(&ring, &Signer::announced(announcement, &signature)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    one_pass[0] = 6;
    let error = verify(&ring, &Signer::announced(&one_pass, &signature)).unwrap_err();
    assert!(
        error.to_string().contains("announced in version 6"),
        "{error}"
    );
    let anonymous = signer.sign(0, &[&created(MADE)], &[], &[b"content"]);
    assert!(
        verify(&ring, &signer.message_of(&anonymous))
            .unwrap_err()
            .to_string()
            .contains("does not say who")
    );
    for (version, name) in [(3, "version 3"), (5, "version 5"), (6, "version 6")] {
        let mut other_version = signature.clone();
        other_version[0] = version;
        assert!(
            verify(&ring, &signer.message_of(&other_version))
                .unwrap_err()
                .to_string()
                .contains(name)
        );
    }
    let mut long = signature.clone();
    long[3] = 10; // SHA-512 was not what was signed
    assert!(verify(&ring, &signer.message_of(&long)).is_err());
}

#[test]
fn keys_of_other_versions_are_refused_by_name() {
    for version in [2, 3, 5, 6] {
        let mut ring = signer(false).plain_ring();
        let after_length = 6;
        assert_eq!(ring[after_length], 4);
        ring[after_length] = version;
        let error = Keyring::parse(&ring, NOW).unwrap_err().to_string();
        assert!(
            error.contains(&format!("a key of version {version}")),
            "{error}"
        );
    }
}

#[test]
fn one_ring_may_hold_bad_keys_beside_good_ones() {
    let (good, bare) = (signer(false), signer(true));
    let ring = [bare.ring(&[]), good.plain_ring()].concat();
    verify(&ring, &good.message(&[&created(MADE)])).unwrap();
    assert!(verify(&ring, &bare.message(&[&created(MADE)])).is_err());
}
