//! The signature policy on images that skopeo and GnuPG signed: what is signed runs,
//! and everything else is refused with the check in its message, before a layer is
//! asked for.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{fs, sync::Arc};

use agent_image_signatures::SignaturePolicy;
use agent_keys::OfflineKeys;
use support::{signed::*, *};

#[test]
fn what_needs_no_signature_costs_no_request() {
    let mut guest = Guest::with(stored(), r#"{"type":"insecureAcceptAnything"}"#);
    assert!(guest.accepted("app:1").signatures.is_empty());
    assert_eq!(guest.registry.seen().len(), 1 + 2, "n + 2 requests");
    guest.config.signature_policy = None;
    guest.accepted("app:1");
    assert_eq!(guest.registry.seen().len(), 3 + 2, "the layer is there");
}

#[test]
fn a_rejected_image_is_refused_although_its_layers_are_there() {
    let mut guest = Guest::with(stored(), r#"{"type":"insecureAcceptAnything"}"#);
    guest.accepted("app:1");
    let policy = br#"{"default":[{"type":"insecureAcceptAnything"},{"type":"reject"}]}"#;
    guest.config.signature_policy = Some(SignaturePolicy::parse(policy).unwrap());
    let sentence = guest.try_pull("app:1").unwrap_err();
    assert_names(
        &sentence,
        &[
            "requirement 2 of 2 (`reject`) of the default",
            "rejects every image",
        ],
    );
}

#[test]
fn what_skopeo_signs_is_accepted_from_a_folder_and_from_a_web_server() {
    let folder = Guest::with(stored(), &signed_by("ed25519.pub", ""))
        .lookaside(&format!("file://{}/lookaside", vectors().display()));
    let image = folder.accepted("app:1");
    let [signature] = image.signatures.as_slice() else {
        panic!("{:?}", image.signatures);
    };
    assert_eq!(signature.requirement, "signedBy");
    assert_eq!(
        signature.signed_name.as_deref(),
        Some("registry.example:5000/app:1")
    );
    assert!(
        signature.place.ends_with("/signature-1"),
        "{}",
        signature.place
    );

    let mut files = stored();
    let place = format!(
        "/store/app@{}/signature-1",
        text("digest").replace(':', "=")
    );
    files.0.insert(place, ("x".into(), vector("ed25519.sig")));
    let web = Guest::with(files, &signed_by("ed25519.pub", ""));
    let url = format!("http://127.0.0.1:{}/store/", web.registry.port);
    let web = web.lookaside(&url);
    web.accepted("app:1");
    assert_eq!(
        web.registry.seen().len(),
        1 + 2 + 2,
        "the signature, and that there is no second one"
    );
}

#[test]
fn every_good_signature_is_accepted_with_its_key() {
    for name in ["rsa3072", "p256", "p384", "subkey", "renewed"] {
        simple(&format!("{name}.pub"), &[&format!("{name}.sig")]).accepted("app:1");
    }
    simple("two.pub", &["rsa3072.sig"]).accepted("app:1");
    simple("ed25519.asc", &["ed25519.sig"]).accepted("app:1");
}

#[test]
fn one_good_signature_among_bad_ones_is_enough() {
    simple(
        "ed25519.pub",
        &[
            "digest-sha1.sig",
            "payload-text.sig",
            "rsa3072.sig",
            "ed25519.sig",
        ],
    )
    .accepted("app:1");
}

#[test]
fn simple_signatures_are_refused_with_the_check_that_failed() {
    for (key, signature, part) in [
        (
            "rsa3072.pub",
            "ed25519.sig",
            "none of the requirement's keys",
        ),
        ("rsa3072.pub", "digest-sha1.sig", "SHA-1"),
        ("rsa3072.pub", "digest-md5.sig", "MD5"),
        ("rsa1024.pub", "rsa1024.sig", "RSA of less than 2048 bits"),
        ("dsa2048.pub", "dsa2048.sig", "DSA"),
        ("sha1-self.pub", "sha1-self.sig", "SHA-1"),
        ("expired.pub", "expired.sig", "expired on 2020-12-31"),
        (
            "expired-subkey.pub",
            "expired-subkey.sig",
            "expired on 2020-12-31",
        ),
        ("revoked.pub", "revoked.sig", "revoked"),
        ("revoked-subkey.pub", "revoked-subkey.sig", "revoked"),
        (
            "ed25519.pub",
            "expiring.sig",
            "the signature expired on 2024-06-11",
        ),
        (
            "ed25519.pub",
            "critical-notation.sig",
            "critical subpacket 20",
        ),
        ("ed25519.pub", "detached.sig", "not a signed message"),
    ] {
        assert_simple_refused(key, signature, part);
    }
}

fn assert_simple_refused(key: &str, signature: &str, part: &str) {
    let sentence = simple(key, &[signature]).refused("app:1");
    assert_names(
        &sentence,
        &[
            "requirement 1 of 1 (`signedBy`) of the default",
            "signature-1: ",
            part,
        ],
    );
}

#[test]
fn signed_statements_are_refused_with_the_check_that_failed() {
    for (key, signature, part) in [
        (
            "ed25519.pub",
            "payload-other-digest.sig",
            "manifest sha256:0000",
        ),
        (
            "ed25519.pub",
            "payload-other-repository.sig",
            "for `registry.example:5000/other:1`, but must be for `registry.example:5000/app:1`",
        ),
        (
            "ed25519.pub",
            "payload-other-tag.sig",
            "for `registry.example:5000/app:2`",
        ),
        (
            "ed25519.pub",
            "payload-other-type.sig",
            "cosign container image signature",
        ),
        (
            "ed25519.pub",
            "payload-extra-critical.sig",
            "unknown field `more`",
        ),
        (
            "ed25519.pub",
            "payload-extra-member.sig",
            "unknown field `more`",
        ),
        (
            "ed25519.pub",
            "payload-twice.sig",
            "duplicate field `image`",
        ),
        (
            "ed25519.pub",
            "payload-no-optional.sig",
            "missing field `optional`",
        ),
        ("ed25519.pub", "payload-fraction.sig", "whole number"),
        (
            "ed25519.pub",
            "payload-text.sig",
            "not a statement about an image",
        ),
    ] {
        assert_simple_refused(key, signature, part);
    }
}

#[test]
fn a_changed_signature_is_refused() {
    let mut changed = vector("packed-none.sig");
    let at = changed
        .windows(5)
        .position(|five| five == b"app:1")
        .unwrap();
    changed[at + 4] = b'2';
    let guest = Guest::with(stored(), &signed_by("ed25519.pub", "")).signatures(&[&changed]);
    assert_names(&guest.refused("app:1"), &["does not verify", "was changed"]);
}

#[test]
fn no_signature_and_nowhere_to_look_are_told_apart() {
    assert_names(
        &simple("ed25519.pub", &[]).refused("app:1"),
        &["has no signature", "signature-1"],
    );
    let guest = Guest::with(stored(), &signed_by("ed25519.pub", ""));
    assert_names(
        &guest.refused("app:1"),
        &["no lookaside store is configured"],
    );
}

#[test]
fn the_name_is_judged_as_the_user_wrote_it() {
    let own = simple("ed25519.pub", &["ed25519.sig"]);
    let by_digest = format!("app@{}", text("digest"));
    own.accepted(&by_digest);
    for (kind, rest, image, accepted) in [
        ("matchExact", "", "app:1", true),
        ("matchExact", "", by_digest.as_str(), false),
        ("matchRepository", "", by_digest.as_str(), true),
        (
            "exactReference",
            r#","dockerReference":"registry.example:5000/app:1""#,
            by_digest.as_str(),
            true,
        ),
        (
            "exactReference",
            r#","dockerReference":"registry.example:5000/app:2""#,
            "app:1",
            false,
        ),
        (
            "exactRepository",
            r#","dockerRepository":"registry.example:5000/app""#,
            "app:1",
            true,
        ),
        (
            "exactRepository",
            r#","dockerRepository":"registry.example/app""#,
            "app:1",
            false,
        ),
        (
            "remapIdentity",
            r#","prefix":"other.example","signedPrefix":"x.example""#,
            "app:1",
            true,
        ),
        (
            "remapIdentity",
            r#","prefix":"registry.example:5000","signedPrefix":"x.example""#,
            "app:1",
            false,
        ),
    ] {
        let requirement = signed_by("ed25519.pub", &identity(kind, rest));
        let guest = Guest::with(stored(), &requirement).signatures(&[&vector("ed25519.sig")]);
        if accepted {
            guest.accepted(image);
            continue;
        }
        assert_names(
            &guest.refused(image),
            &["signature-1: it is for `registry.example:5000/app:1`, but must be for"],
        );
    }
}

#[test]
fn an_image_of_several_platforms_is_accepted_by_its_platform_s_signature() {
    let guest = Guest::with(stored(), &signed_by("ed25519.pub", ""))
        .lookaside(&format!("file://{}/lookaside", vectors().display()));
    let image = guest.accepted("multi:1");
    assert_eq!(image.manifest_digest.to_string(), text("digest"));
    // One signed for another platform does not count, the index's does.
    let top = directory();
    let folder = |digest: &str| {
        top.path()
            .join(format!("multi@{}", digest.replace(':', "=")))
    };
    let of = |digest: &str| {
        vectors()
            .join("lookaside")
            .join(format!("multi@{}", digest.replace(':', "=")))
            .join("signature-1")
    };
    let other = fs::read_dir(vectors().join("lookaside"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| {
            name.starts_with("multi@")
                && !name.contains(&text("digest")[7..])
                && !name.contains(&text("index-digest")[7..])
        })
        .unwrap();
    fs::create_dir(folder(&text("digest"))).unwrap();
    fs::copy(
        vectors().join("lookaside").join(other).join("signature-1"),
        folder(&text("digest")).join("signature-1"),
    )
    .unwrap();
    let guest = Guest::with(stored(), &signed_by("ed25519.pub", ""))
        .lookaside(&format!("file://{}", top.path().display()));
    assert_names(&guest.refused("multi:1"), &["is not this image's"]);
    fs::create_dir(folder(&text("index-digest"))).unwrap();
    fs::copy(
        of(&text("index-digest")),
        folder(&text("index-digest")).join("signature-1"),
    )
    .unwrap();
    guest.accepted("multi:1");
}

#[test]
fn keys_that_are_missing_or_no_keys_are_named() {
    for (requirement, parts) in [
        (signed_by("nowhere", ""), ["nowhere", "cannot be read"]),
        (
            signed_by("digest", ""),
            ["digest", "not well-formed OpenPGP"],
        ),
        (
            sigstore("p521.pem", ""),
            ["p521.pem", "curve other than P-256 and P-384"],
        ),
        (sigstore("ed25519.pub", ""), ["ed25519.pub", "PEM"]),
        (
            r#"{"type":"sigstoreSigned","keyPath":"kbs:///a/b/c"}"#.to_owned(),
            ["kbs:///a/b/c", "key broker"],
        ),
    ] {
        let sentence = Guest::with(stored(), &requirement).refused("app:1");
        assert_names(&sentence, &["its key `", "cannot be used"]);
        assert_names(&sentence, &parts);
    }
}

#[test]
fn keys_come_from_the_policy_and_from_the_key_broker() {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(vector("p256.pem"));
    let plain = text("p256.pem").replace('\n', "\\n");
    for key in [
        format!(r#""keyData":"{encoded}""#),
        format!(r#""keyDatas":["{plain}"]"#),
        r#""keyPath":"kbs:///default/cosign-public-key/test""#.to_owned(),
    ] {
        let mut guest = Guest::with(stored(), &format!(r#"{{"type":"sigstoreSigned",{key}}}"#));
        let mut keys = OfflineKeys::default();
        let file = format!(r#"{{"default/cosign-public-key/test":"{encoded}"}}"#);
        keys.add(file.as_bytes()).unwrap();
        guest.config.keys = Some(Arc::new(keys));
        guest.accepted("cosign2-p256:1");
    }
}
