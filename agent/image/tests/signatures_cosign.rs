//! The signature policy on images that cosign signed, in tags and in Sigstore bundles.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::fs;

use agent_image_registry::Digest;
use support::{signed::*, *};

#[test]
fn what_cosign_2_signs_is_accepted_with_its_key_and_no_other() {
    for name in ["p256", "p384", "ed25519", "rsa"] {
        let image = format!("cosign2-{name}:1");
        let guest = Guest::with(
            stored(),
            &sigstore(&format!("{name}.pem"), &identity("matchRepository", "")),
        );
        let found = guest.accepted(&image).signatures;
        assert_eq!(
            found[0].signed_name.as_deref(),
            Some(format!("{HOST}/cosign2-{name}").as_str())
        );
        assert_eq!(
            guest.registry.seen().len(),
            1 + 2 + 2,
            "the tag and its payload"
        );
        let other = if name == "p256" { "p384" } else { "p256" };
        let sentence =
            Guest::with(stored(), &sigstore(&format!("{other}.pem"), "")).refused(&image);
        assert_names(
            &sentence,
            &[
                "(`sigstoreSigned`)",
                ".sig layer 1: ",
                "none of the requirement's keys made it",
            ],
        );
    }
    let index = Guest::with(
        stored(),
        &sigstore("p256.pem", &identity("matchRepository", "")),
    );
    index.accepted("cosign2-multi:1");
}

#[test]
fn what_cosign_signs_for_another_repository_is_refused_without_an_identity() {
    let mut files = stored();
    let own = sigstore("p256.pem", "");
    Guest::with(files.clone(), &own).accepted("cosign2-p256:1");
    let copies: Vec<_> = files
        .0
        .iter()
        .filter(|(path, _)| path.contains("/cosign2-p256/"))
        .map(|(path, answer)| (path.replace("/cosign2-p256/", "/other/"), answer.clone()))
        .collect();
    files.0.extend(copies);
    let sentence = Guest::with(files, &own).refused("other:1");
    assert_names(&sentence, &["cosign2-p256`", "or the repository"]);
}

#[test]
fn what_cosign_3_signs_is_accepted_with_its_key_and_no_other() {
    for name in ["p256", "p384", "ed25519", "rsa"] {
        let image = format!("cosign3-{name}:1");
        let guest = Guest::with(
            stored(),
            &sigstore(&format!("{name}.pem"), &identity("matchRepository", "")),
        );
        assert_eq!(guest.accepted(&image).signatures[0].signed_name, None);
        let other = if name == "p256" { "p384" } else { "p256" };
        let sentence =
            Guest::with(stored(), &sigstore(&format!("{other}.pem"), "")).refused(&image);
        assert_names(
            &sentence,
            &[
                "(`sigstoreSigned`)",
                "none of the requirement's keys made its signature",
            ],
        );
    }
    let index = Guest::with(
        stored(),
        &sigstore("p256.pem", &identity("matchRepository", "")),
    );
    index.accepted("cosign3-multi:1");
}

#[test]
fn bundles_are_found_by_the_referrers_api() {
    let files = stored();
    let list = files.0[&format!(
        "/v2/cosign3-p256/manifests/{}",
        text("digest").replace(':', "-")
    )]
        .1
        .clone();
    let empty = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let path = format!("/v2/cosign3-p256/referrers/{}", text("digest"));
    let registry = Registry::start(move |seen, _| {
        let tag = seen.path.contains("manifests/sha256-") && !seen.path.ends_with(".sig");
        assert!(!tag, "the tag is asked for although there is the API");
        Some(match seen.path.strip_prefix(&path) {
            Some("") => answer(200, empty)
                .with("Content-Type", OCI_INDEX)
                .with("Link", &format!("<{path}?last=1>; rel=\"next\"")),
            Some(_) => answer(200, list.clone()).with("Content-Type", OCI_INDEX),
            None => files.answer(&seen.path),
        })
    });
    let guest = Guest::of(registry, &sigstore("p256.pem", ""));
    guest.accepted("cosign3-p256:1");
}

#[test]
fn signatures_that_name_no_tag_do_not_meet_an_exact_identity() {
    for image in ["cosign2-p256:1", "cosign3-p256:1"] {
        for (kind, rest) in [
            ("matchExact", ""),
            ("matchRepoDigestOrExact", ""),
            (
                "exactRepository",
                r#","dockerRepository":"registry.example:5000/other""#,
            ),
        ] {
            let guest = Guest::with(stored(), &sigstore("p256.pem", &identity(kind, rest)));
            assert_names(&guest.refused(image), &["but must be for"]);
        }
    }
}

#[test]
fn an_attestation_is_no_signature() {
    let sentence = Guest::with(stored(), &sigstore("p256.pem", "")).refused("attested:1");
    assert_names(
        &sentence,
        &["it states `https://cosign.sigstore.dev/attestation/vuln/v1`"],
    );
}

#[test]
fn an_unsigned_image_is_refused_with_the_places_that_were_looked_at() {
    let sentence = Guest::with(stored(), &sigstore("p256.pem", "")).refused("app:1");
    let tag = format!("`{}.sig`", text("digest").replace(':', "-"));
    assert_names(
        &sentence,
        &[
            "has no signature",
            &tag,
            "Sigstore bundles in `registry.example:5000/app`",
        ],
    );
}

/// The blob that holds the payload or bundle, and the manifest that names it.
fn signature_blob(files: &Files, repository: &str, version: &str) -> (String, String) {
    let path = format!("/v2/{repository}/manifests/{version}");
    let manifest: serde_json::Value = serde_json::from_slice(&files.0[&path].1).unwrap();
    let blob = manifest["layers"][0]["digest"].as_str().unwrap();
    (path, format!("/v2/{repository}/blobs/{blob}"))
}

#[test]
fn changed_payloads_and_annotations_are_refused() {
    let version = format!("{}.sig", text("digest").replace(':', "-"));
    let (manifest, blob) = signature_blob(&stored(), "cosign2-p256", &version);
    let guest = |files| Guest::with(files, &sigstore("p256.pem", ""));

    let mut swapped = stored();
    swapped.0.get_mut(&blob).unwrap().1[10] ^= 1;
    assert_names(
        &guest(swapped).refused("cosign2-p256:1"),
        &["does not have the digest"],
    );

    let replaced = |from: &str, to: &str| {
        let mut files = stored();
        let bytes = &mut files.0.get_mut(&manifest).unwrap().1;
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from));
        *bytes = text.replace(from, to).into_bytes();
        files
    };
    let lost = replaced(
        "dev.cosignproject.cosign/signature",
        "dev.cosignproject.cosign/other",
    );
    assert_names(
        &guest(lost).refused("cosign2-p256:1"),
        &["annotation `dev.cosignproject.cosign/signature` is missing"],
    );
    let typed = replaced(
        "application/vnd.dev.cosign.simplesigning.v1+json",
        "text/plain",
    );
    assert_names(
        &guest(typed).refused("cosign2-p256:1"),
        &["not a manifest that lists signatures"],
    );
    let wrapped = replaced("cosign/signature\":\"ME", "cosign/signature\":\"M\\r\\nE");
    guest(wrapped).accepted("cosign2-p256:1");

    // A payload of the attacker's own, with everything but the signature right.
    let mut forged = stored();
    let text = String::from_utf8(forged.0[&blob].1.clone()).unwrap();
    let payload = text.replace("cosign2-p256", "cosign2-p384");
    let digest = Digest::sha256(payload.as_bytes()).to_string();
    let old = blob.rsplit('/').next().unwrap();
    let listed = String::from_utf8(forged.0[&manifest].1.clone())
        .unwrap()
        .replace(old, &digest);
    forged.0.get_mut(&manifest).unwrap().1 = listed.into_bytes();
    forged.0.insert(
        format!("/v2/cosign2-p256/blobs/{digest}"),
        ("x".into(), payload.into_bytes()),
    );
    assert_names(
        &guest(forged).refused("cosign2-p256:1"),
        &["none of the requirement's keys made it, or it was changed"],
    );
}

#[test]
fn a_signature_moved_to_another_image_is_refused() {
    // Signed for the index, put beside an image that is not in it.
    let mut files = stored();
    let other = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#;
    let digest = text("digest");
    let own = files.0[&format!("/v2/app/manifests/{digest}")].1.clone();
    let own = String::from_utf8(own).unwrap().replacen(
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
        &format!("{other}  "),
        1,
    );
    let changed = files.manifest("app", "1", OCI_MANIFEST, own.as_bytes());
    let version = format!("{}.sig", digest.replace(':', "-"));
    let (manifest, blob) = signature_blob(&files, "cosign2-p256", &version);
    let signature = files.0[&manifest].clone();
    files.0.insert(
        format!("/v2/app/manifests/{}.sig", changed.replace(':', "-")),
        signature,
    );
    let payload = files.0[&blob].clone();
    files.0.insert(blob.replace("cosign2-p256", "app"), payload);
    let sentence = Guest::with(files, &sigstore("p256.pem", "")).refused("app:1");
    assert_names(
        &sentence,
        &[&format!(
            "it is for the manifest {digest}, which is not this image's"
        )],
    );
}

#[test]
fn all_requirements_must_be_met() {
    let both = |key| {
        format!(
            "{},{}",
            sigstore(key, ""),
            signed_by(
                "ed25519.pub",
                &identity(
                    "exactRepository",
                    r#","dockerRepository":"registry.example:5000/app""#
                )
            )
        )
    };
    let lookaside = directory();
    let folder = lookaside
        .path()
        .join(format!("cosign2-p256@{}", text("digest").replace(':', "=")));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("signature-1"), vector("ed25519.sig")).unwrap();
    let url = format!("file://{}", lookaside.path().display());
    let image = Guest::with(stored(), &both("p256.pem"))
        .lookaside(&url)
        .accepted("cosign2-p256:1");
    assert_eq!(image.signatures.len(), 2);
    let sentence = Guest::with(stored(), &both("p384.pem"))
        .lookaside(&url)
        .refused("cosign2-p256:1");
    assert_names(&sentence, &["requirement 1 of 2"]);
    fs::remove_file(folder.join("signature-1")).unwrap();
    let sentence = Guest::with(stored(), &both("p256.pem"))
        .lookaside(&url)
        .refused("cosign2-p256:1");
    assert_names(&sentence, &["requirement 2 of 2", "no signature"]);
}

#[test]
fn a_registry_that_fails_or_floods_is_no_reason_to_accept() {
    let files = stored();
    let many: Vec<String> = vec![
        format!(
            r#"{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{}","size":2,"annotations":{{"dev.cosignproject.cosign/signature":"YQ=="}}}}"#,
            Digest::sha256(b"{}")
        );
        100
    ];
    let flood = manifest_json(&Digest::sha256(b"{}").to_string(), 2, &many.join(","));
    let registry = Registry::start(move |seen, _| {
        Some(match seen.path.as_str() {
            path if path.ends_with(".sig") => {
                answer(200, flood.clone()).with("Content-Type", OCI_MANIFEST)
            }
            path if path.ends_with(&Digest::sha256(b"{}").to_string()) => answer(200, "{}"),
            path if path.contains("/referrers/") => answer(403, "{}"),
            path => files.answer(path),
        })
    });
    let guest = Guest::of(registry, &sigstore("p256.pem", ""));
    let sentence = guest.refused("app:1");
    assert_names(&sentence, &[".sig layer 1: ", "and "]);
    assert!(
        guest.registry.seen().len() < 50,
        "{}",
        guest.registry.seen().len()
    );
}
