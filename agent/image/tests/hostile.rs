//! Registries that lie, stall, break off or ask for too much: each is refused with
//! a sentence that names the check, and nothing is left in the store.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use agent_image_registry::Digest;
use support::{refusals::*, *};

fn refusal_of(layer: Layer) -> String {
    let mut files = Files::default();
    files.image(&[layer]);
    refusal(&Registry::serving(files))
}

#[test]
fn blob_that_is_not_the_named_one_is_refused_by_its_digest() {
    let named = Digest::sha256(b"other").to_string();
    for layer in [plain(&archive()), gzip(&archive()), zstd(&archive())] {
        let mut files = Files::default();
        files.image(&[Layer {
            stated_digest: Some(named.clone()),
            ..layer.clone()
        }]);
        files.0.insert(
            format!("/v2/x/blobs/{named}"),
            ("x".into(), layer.stored.clone()),
        );
        let sentence = refusal(&Registry::serving(files));
        assert_names(
            &sentence,
            &["layer 1 of 1", "blob digest does not match", &named],
        );
    }
}

#[test]
fn changed_byte_is_a_wrong_digest_even_where_it_breaks_the_compression() {
    for layer in [gzip(&archive()), zstd(&archive())] {
        let mut files = Files::default();
        files.image(std::slice::from_ref(&layer));
        let digest = Digest::sha256(&layer.stored).to_string();
        for at in [0, 20, layer.stored.len() / 2, layer.stored.len() - 1] {
            let mut changed = layer.stored.clone();
            changed[at] ^= 0x10;
            files
                .0
                .insert(format!("/v2/x/blobs/{digest}"), ("x".into(), changed));
            assert_names(
                &refusal(&Registry::serving(files.clone())),
                &["blob digest does not match"],
            );
        }
    }
}

#[test]
fn wrong_diff_id_is_refused() {
    let diff_id = Digest::sha256(b"other").to_string();
    for layer in [plain(&archive()), gzip(&archive())] {
        let sentence = refusal_of(Layer {
            diff_id: diff_id.clone(),
            ..layer
        });
        assert_names(
            &sentence,
            &["diff id does not match", &diff_id, "broken as pushed"],
        );
    }
}

#[test]
fn bytes_after_the_archive_count_for_the_diff_id() {
    let longer = [archive(), vec![1; 5000]].concat();
    let mut layer = gzip(&longer);
    layer.diff_id = Digest::sha256(&archive()).to_string();
    assert_names(&refusal_of(layer), &["diff id does not match"]);
}

#[test]
fn wrong_sizes_are_refused() {
    let layer = gzip(&archive());
    for size in [layer.stored.len() - 1, layer.stored.len() + 1] {
        let sentence = refusal_of(Layer {
            stated_size: Some(size),
            ..layer.clone()
        });
        assert_names(
            &sentence,
            &["announces", &format!("the manifest says {size}")],
        );
    }
}

#[test]
fn config_must_be_the_named_one_for_this_platform_and_these_layers() {
    let layer = plain(&archive());
    let cases = [
        (
            config_json("s390x", &format!("\"{}\"", layer.diff_id)),
            "is for linux/s390x",
        ),
        (
            config_json("amd64", ""),
            "1 layers, but its configuration 0 diff ids",
        ),
        ("{".to_owned(), "configuration cannot be read"),
    ];
    for (config, message) in cases {
        let mut files = Files::default();
        files.image(std::slice::from_ref(&layer));
        let config_digest = files.blob("x", config.as_bytes());
        let blob = files.blob("x", &layer.stored);
        let descriptor = format!(
            r#"{{"mediaType":"{OCI_LAYER}","digest":"{blob}","size":{}}}"#,
            layer.stored.len()
        );
        let manifest = manifest_json(&config_digest, config.len(), &descriptor);
        files.manifest("x", "latest", OCI_MANIFEST, manifest.as_bytes());
        assert_names(&refusal(&Registry::serving(files.clone())), &[message]);

        files.0.insert(
            format!("/v2/x/blobs/{config_digest}"),
            ("x".into(), vec![b' '; config.len()]),
        );
        assert_names(
            &refusal(&Registry::serving(files)),
            &["digest of its configuration does not match"],
        );
    }
}

#[test]
fn index_is_followed_to_our_platform_or_refused_with_what_it_has() {
    let mut files = Files::default();
    let manifest = files.image(&[plain(&archive())]);
    let size = files.0["/v2/x/manifests/latest"].1.len();
    let index = |architecture: &str, size: usize| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"mediaType":"{OCI_MANIFEST}",
            "digest":"{manifest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}]}}"#
        )
    };
    files.manifest("x", "latest", OCI_INDEX, index("s390x", size).as_bytes());
    let sentence = refusal(&Registry::serving(files.clone()));
    assert_names(
        &sentence,
        &["no image for linux/amd64", "only for: linux/s390x"],
    );

    let nested = index("amd64", size).replace(OCI_MANIFEST, OCI_INDEX);
    let unknown = index("unknown", size).replace("linux", "unknown");
    let empty = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
    for (text, words) in [
        (nested, "refers to another index"),
        (unknown, "without an image for any platform"),
        (empty, "without an image for any platform"),
    ] {
        files.manifest("x", "latest", OCI_INDEX, text.as_bytes());
        let sentence = refusal(&Registry::serving(files.clone()));
        assert_names(&sentence, &[words]);
        assert!(!sentence.contains("only for"), "{sentence}");
    }

    files.manifest(
        "x",
        "latest",
        OCI_INDEX,
        index("amd64", size + 1).as_bytes(),
    );
    assert_names(
        &refusal(&Registry::serving(files.clone())),
        &["platform manifest has"],
    );

    let index_digest = files.manifest("x", "latest", OCI_INDEX, index("amd64", size).as_bytes());
    let registry = Registry::serving(files);
    let directory = directory();
    let puller = registry.puller(&directory.path().join("store"));
    for name in [
        "x".to_owned(),
        format!("x@{index_digest}"),
        format!("x@{manifest}"),
        format!("x:old@{manifest}"),
    ] {
        let image = puller.pull(&registry.reference(&name)).unwrap();
        assert_eq!(image.manifest_digest.to_string(), manifest, "{name}");
    }
    let other = Digest::sha256(b"").to_string();
    assert!(
        puller
            .pull(&registry.reference(&format!("x@{other}")))
            .is_err()
    );
}

#[test]
fn manifest_must_have_the_digest_that_was_asked_for_or_stated() {
    let mut files = Files::default();
    files.image(&[plain(&archive())]);
    let manifest = files.0["/v2/x/manifests/latest"].clone();
    let pinned = Digest::sha256(b"pinned").to_string();
    files
        .0
        .insert(format!("/v2/x/manifests/{pinned}"), manifest.clone());
    let registry = Registry::serving(files.clone());
    let directory = directory();
    let puller = registry.puller(&directory.path().join("store"));
    let error = puller
        .pull(&registry.reference(&format!("x@{pinned}")))
        .unwrap_err();
    assert_names(
        &error.sentence(),
        &["digest of its manifest does not match", &pinned],
    );

    let registry = Registry::start(move |seen, _| {
        Some(
            files
                .answer(&seen.path)
                .with("Docker-Content-Digest", &pinned),
        )
    });
    assert_names(
        &refusal(&registry),
        &["the registry says that its manifest has the digest"],
    );
}

#[test]
fn absent_images_and_refused_access_are_told_apart() {
    let absent = refusal(&Registry::serving(Files::default()));
    assert_names(
        &absent,
        &[
            "has no such manifest (NAME_UNKNOWN: no such thing)",
            "check the image's name and tag",
        ],
    );
    let denied = refusal(&Registry::start(|_, _| Some(answer(403, ""))));
    assert_names(&denied, &["refuses access", "give credentials"]);
}

#[test]
fn nobody_at_the_address_is_said_with_the_address() {
    let registry = Registry::serving(Files::default());
    let mut config = registry.config(&directory().path().join("store"));
    config.pull_deadline = Duration::from_secs(3);
    let reference = registry.reference("x");
    let port = registry.port;
    drop(registry);
    let error = agent_image::Puller::build(config)
        .unwrap()
        .pull(&reference)
        .unwrap_err();
    assert_names(&error.sentence(), &[&format!("127.0.0.1:{port}")]);
}

#[test]
fn redirects_in_a_loop_end() {
    let registry = Registry::start(|seen, _| Some(answer(307, "").with("Location", &seen.path)));
    assert_names(&refusal(&registry), &["redirects more than 5 times"]);
    let registry =
        Registry::start(|_, _| Some(answer(302, "").with("Location", "file:///etc/passwd")));
    assert_names(&refusal(&registry), &["which is not followed"]);
}

#[test]
fn stalled_body_ends_with_the_deadline_and_is_not_waited_for_longer() {
    let mut files = Files::default();
    files.image(&[gzip(&archive())]);
    let registry = Registry::start(move |seen, _| {
        let mut answer = files.answer(&seen.path);
        if seen.path.contains("/blobs/") && answer.body.first() == Some(&0x1f) {
            answer.announced = Some(answer.body.len());
            answer.body.truncate(answer.body.len() / 2);
            answer.stall = true;
        }
        Some(answer)
    });
    let directory = directory();
    let store = directory.path().join("store");
    let mut config = registry.config(&store);
    config.silence = Duration::from_millis(300);
    config.pull_deadline = Duration::from_secs(3);
    let puller = agent_image::Puller::build(config).unwrap();
    let begin = Instant::now();
    let error = puller.pull(&registry.reference("x")).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_names(&error.sentence(), &["layer 1 of 1"]);
    assert_empty(&store);
}

#[test]
fn endless_answers_are_cut_off() {
    let registry = Registry::start(|_, _| Some(answer(200, vec![b' '; 5 << 20])));
    assert_names(
        &refusal(&registry),
        &["sends more than 4194304 bytes where a manifest was expected"],
    );
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = Tar::new()
        .entry("zeros", b'0', 0o644, "", &vec![0; 8 << 20])
        .end();
    let trailing = [archive(), vec![0; 8 << 20]].concat();
    for layer in [gzip(&zeros), zstd(&zeros), gzip(&trailing), zstd(&trailing)] {
        let mut files = Files::default();
        files.image(&[layer]);
        let registry = Registry::serving(files);
        let directory = directory();
        let store = directory.path().join("store");
        let mut config = registry.config(&store);
        config.layer_max_bytes = 4 << 20;
        let puller = agent_image::Puller::build(config).unwrap();
        let error = puller.pull(&registry.reference("x")).unwrap_err();
        assert_names(&error.sentence(), &["unpacks to more than 4194304 bytes"]);
        assert_empty(&store);
    }
}

#[test]
fn layers_of_other_kinds_are_refused_by_their_media_type() {
    for kind in ["application/vnd.oci.image.layer.v1.tar+xz", "text/plain"] {
        let sentence = refusal_of(Layer {
            media_type: kind.into(),
            ..plain(&archive())
        });
        assert_names(&sentence, &["media type", kind]);
    }
}

#[test]
fn failed_layer_stops_the_others_and_the_next_try_succeeds() {
    let layers: Vec<Layer> = (0..6)
        .map(|n| gzip(&Tar::new().file(&format!("f{n}"), b"x").end()))
        .collect();
    let mut files = Files::default();
    files.image(&layers);
    let broken = Digest::sha256(&layers[3].stored).to_string();
    let registry = Registry::start(move |seen, earlier| {
        if seen.path.contains(&broken) && earlier == 0 {
            return Some(answer(404, ""));
        }
        Some(files.answer(&seen.path))
    });
    let directory = directory();
    let store = directory.path().join("store");
    let puller = registry.puller(&store);
    let error = puller.pull(&registry.reference("x")).unwrap_err();
    assert_names(&error.sentence(), &["layer 4 of 6", "has no such blob"]);
    assert_eq!(fs::read_dir(store.join("staging")).unwrap().count(), 0);
    assert_eq!(
        puller
            .pull(&registry.reference("x"))
            .unwrap()
            .diff_ids
            .len(),
        6
    );
}
