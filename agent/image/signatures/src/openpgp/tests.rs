//! Messages and keys made by GnuPG, and variations of them.

use std::path::Path;

use super::{
    error::{KeyFlaw, OpenPgpError},
    keyring::Keyring,
    message::Signed,
};

/// Some days after the vectors were made.
const NOW: u64 = 1_717_200_000 + 5 * 86_400;

fn vector(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    std::fs::read(folder.join(name)).unwrap()
}

fn verify_at(key: &str, message: &str, now: u64) -> Result<Signed, OpenPgpError> {
    Keyring::parse(&vector(key), now)?.verify(&vector(message), now)
}

fn verify(key: &str, message: &str) -> Result<Signed, OpenPgpError> {
    verify_at(key, message, NOW)
}

/// The flaw of the key that signed.
fn flaw(key: &str, message: &str) -> KeyFlaw {
    match verify(key, message) {
        Err(OpenPgpError::Key { flaw, .. }) => flaw,
        other => panic!("{key} {message}: {other:?}"),
    }
}

#[test]
fn every_supported_key_verifies_what_gnupg_signs_with_it() {
    for name in [
        "ed25519",
        "rsa3072",
        "p256",
        "p384",
        "subkey",
        "renewed",
        "revoked-uid",
    ] {
        let signed = verify(&format!("{name}.pub"), &format!("{name}.sig")).unwrap();
        assert!(signed.content.starts_with(b"{\"critical\""), "{name}");
        assert_eq!(signed.signer.len(), 40);
    }
    for key in ["ed25519.asc", "two.pub", "certified.pub"] {
        verify(key, "ed25519.sig").unwrap();
    }
}

#[test]
fn every_supported_form_of_message_is_read() {
    for name in [
        "packed-none",
        "packed-zip",
        "packed-zlib",
        "piped",
        "notation",
    ] {
        verify("ed25519.pub", &format!("{name}.sig")).unwrap();
    }
    for name in ["digest-sha384", "digest-sha512"] {
        verify("rsa3072.pub", &format!("{name}.sig")).unwrap();
    }
}

#[test]
fn weak_digests_are_refused_by_name() {
    for (name, found) in [
        ("md5", "MD5"),
        ("sha1", "SHA-1"),
        ("ripemd160", "RIPEMD-160"),
        ("sha224", "SHA-224"),
    ] {
        let result = verify("rsa3072.pub", &format!("digest-{name}.sig"));
        assert!(
            matches!(result, Err(OpenPgpError::WeakDigest(weak)) if weak == found),
            "{result:?}"
        );
    }
    let flaw = flaw("sha1-self.pub", "sha1-self.sig");
    assert!(
        matches!(&flaw, KeyFlaw::Unbound(why) if why.contains("SHA-1")),
        "{flaw}"
    );
}

#[test]
fn keys_that_may_not_sign_are_refused_by_reason() {
    for name in ["expired", "expired-subkey"] {
        let flaw = flaw(&format!("{name}.pub"), &format!("{name}.sig"));
        assert!(
            flaw.to_string().starts_with("expired on 2020-12-31"),
            "{flaw}"
        );
    }
    for name in ["revoked", "revoked-subkey"] {
        assert_eq!(
            flaw(&format!("{name}.pub"), &format!("{name}.sig")),
            KeyFlaw::Revoked
        );
    }
    verify("before-revocation.pub", "revoked.sig").unwrap();
    for (name, kind) in [
        ("rsa1024", "RSA of less than 2048 bits"),
        ("p521", "P-256 and P-384"),
        ("dsa2048", "DSA"),
    ] {
        let flaw = flaw(&format!("{name}.pub"), &format!("{name}.sig"));
        assert!(
            matches!(flaw, KeyFlaw::Algorithm(found) if found.contains(kind)),
            "{flaw}"
        );
    }
}

#[test]
fn a_key_that_was_valid_is_judged_by_now() {
    verify_at("expired.pub", "expired.sig", 1_580_515_300).unwrap();
    let early = verify_at("ed25519.pub", "ed25519.sig", 1_580_515_300);
    assert!(
        matches!(
            early,
            Err(OpenPgpError::Key {
                flaw: KeyFlaw::Future(_),
                ..
            })
        ),
        "{early:?}"
    );
}

#[test]
fn an_expired_signature_is_refused() {
    verify("ed25519.pub", "expiring.sig").unwrap();
    let late = verify_at("ed25519.pub", "expiring.sig", NOW + 6 * 86_400).unwrap_err();
    assert_eq!(late.to_string(), "the signature expired on 2024-06-11");
}

#[test]
fn the_wrong_key_is_told_from_a_forgery() {
    let wrong = verify("rsa3072.pub", "ed25519.sig");
    assert!(
        matches!(wrong, Err(OpenPgpError::UnknownKey(_))),
        "{wrong:?}"
    );
    let mut changed = vector("packed-none.sig");
    let at = changed.windows(4).position(|four| four == b"app:").unwrap();
    changed[at] = b'b';
    let ring = Keyring::parse(&vector("ed25519.pub"), NOW).unwrap();
    assert!(matches!(
        ring.verify(&changed, NOW),
        Err(OpenPgpError::Forged(_))
    ));
}

#[test]
fn no_changed_byte_of_a_message_is_accepted_with_other_content() {
    let (ring, message) = (
        Keyring::parse(&vector("ed25519.pub"), NOW).unwrap(),
        vector("packed-none.sig"),
    );
    let content = ring.verify(&message, NOW).unwrap().content;
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut changed = message.clone();
            changed[at] ^= 1 << bit;
            if let Ok(signed) = ring.verify(&changed, NOW) {
                assert_eq!(signed.content, content, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn no_changed_byte_of_a_key_ring_lets_a_revoked_or_expired_key_sign() {
    for name in ["revoked-subkey", "expired", "expired-subkey", "sha1-self"] {
        let (key, message) = (
            vector(&format!("{name}.pub")),
            vector(&format!("{name}.sig")),
        );
        for at in 0..key.len() {
            let mut changed = key.clone();
            changed[at] ^= 1;
            let verdict = Keyring::parse(&changed, NOW).and_then(|ring| ring.verify(&message, NOW));
            // The type of a revocation is all that makes it one; the ring is the owner's.
            if verdict.is_ok() {
                assert!(name.starts_with("revoked"), "{name}: byte {at}");
            }
        }
    }
}

#[test]
fn what_is_not_one_signature_over_bytes_is_refused() {
    for (name, part) in [
        ("textmode", "type 0x01"),
        ("two-signers", "one signature around"),
        ("detached", "detached"),
        ("armored", "does not begin with a tag"),
        ("packed-bzip2", "bzip2"),
        ("critical-notation", "critical subpacket 20"),
    ] {
        let error = verify("ed25519.pub", &format!("{name}.sig"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
    let ring = Keyring::parse(&vector("ed25519.pub"), NOW).unwrap();
    let message = vector("packed-none.sig");
    for length in 0..message.len() {
        assert!(ring.verify(&message[..length], NOW).is_err(), "{length}");
    }
    assert!(ring.verify(&message.repeat(2), NOW).is_err());
}

#[test]
fn bombs_and_nested_compression_are_refused() {
    use std::io::Write as _;
    let ring = Keyring::parse(&vector("ed25519.pub"), NOW).unwrap();
    let zlib = |content: &[u8]| {
        let mut encoder =
            flate2::write::ZlibEncoder::new(vec![0xa3, 2], flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let refuse = |message: &[u8]| ring.verify(message, NOW).unwrap_err().to_string();
    assert!(refuse(&zlib(&vec![0; 10 << 20])).contains("too large"));
    assert!(refuse(&zlib(&vector("packed-zlib.sig"))).contains("not a signed message"));
    ring.verify(&zlib(&vector("packed-none.sig")), NOW).unwrap();
    let mut longer = zlib(&vector("packed-none.sig"));
    longer.push(0);
    assert!(refuse(&longer).contains("follows the compressed content"));
}

#[test]
fn rings_that_hold_something_else_are_refused_by_name() {
    let mut secret = vector("ed25519.pub");
    secret[0] = 0x94; // a secret key's tag
    let keybox = [&[0; 8][..], b"KBXf"].concat();
    let stray = vector("packed-none.sig");
    let user_first = vector("ed25519.pub")[53..].to_vec();
    for (bytes, part) in [
        (&secret[..], "secret key"),
        (&keybox, "keybox"),
        (&stray, "does not belong"),
        (&user_first, "does not belong"),
        (b"", "no key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "armored"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "armored"),
    ] {
        let error = Keyring::parse(bytes, NOW).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
