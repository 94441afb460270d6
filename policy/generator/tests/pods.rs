//! Every pod of `tests/pods` has the policy that is written beside it.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::{collections::BTreeMap, fs};

use agent_protocol::initdata::{Algorithm, packed, write};
use policy_engine::document::Document;
use policy_generator::{Secrets, annotated, generate, patch};
use serde_json::Value;
use support::{Layout, choices, names, pods, strict};

/// The documents of a file with pods, readable, with digests of images that tests make left out.
fn documents(layout: &Layout, name: &str) -> (Vec<Document>, Vec<String>) {
    let generated = generate(
        vec![layout.pod(name)],
        vec![],
        &strict(),
        &layout.images(),
        &choices(),
    );
    let generated = generated.unwrap_or_else(|problems| panic!("{name}: {problems}"));
    let warnings = generated.warnings.iter().map(ToString::to_string).collect();
    let documents = generated.policies.into_iter().map(|policy| policy.document);
    (documents.collect(), warnings)
}

fn readable(documents: &[Document], warnings: &[String]) -> String {
    let values: Vec<Value> = documents
        .iter()
        .map(|document| serde_json::from_str(&document.text()).unwrap())
        .collect();
    let all = serde_json::json!({"documents": values, "warnings": warnings});
    let text = serde_json::to_string_pretty(&all).unwrap();
    let lines = text.lines().map(|line| match line.split_once("@sha256:") {
        Some((before, _)) => format!("{before}@sha256:DIGEST\","),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn each_pod_has_the_policy_that_is_written_beside_it() {
    let layout = Layout::make();
    let write_golden = std::env::var_os("WRITE_GOLDEN").is_some();
    let mut different = Vec::new();
    for name in names() {
        let (documents, warnings) = documents(&layout, &name);
        let text = readable(&documents, &warnings);
        let golden = pods().join("golden").join(format!("{name}.json"));
        if write_golden {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &text).unwrap();
        }
        if fs::read_to_string(&golden).ok() != Some(text.clone()) {
            different.push(format!("{name}:\n{text}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(names().len() >= 25);
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let layout = Layout::make();
    for name in names() {
        let texts = || {
            let (documents, _) = documents(&layout, &name);
            documents.iter().map(Document::text).collect::<Vec<_>>()
        };
        assert_eq!(texts(), texts(), "{name}");
    }
}

#[test]
fn a_document_is_read_back_as_it_was_written() {
    let layout = Layout::make();
    for name in names() {
        for document in documents(&layout, &name).0 {
            let text = document.text();
            assert_eq!(
                Document::parse(text.as_bytes()).unwrap(),
                document,
                "{name}"
            );
        }
    }
}

#[test]
fn the_policy_of_one_container_is_delivered_in_a_kibibyte() {
    let layout = Layout::make();
    for name in names() {
        for document in documents(&layout, &name).0 {
            if document.containers.len() != 1 {
                continue;
            }
            let entries = BTreeMap::from([("pod-policy.json".to_owned(), document.text())]);
            let initdata = write(Algorithm::Sha256, &entries).unwrap();
            let delivered = packed::to_annotation(&packed::pack(&initdata).unwrap());
            assert!(delivered.len() <= 1024, "{name}: {} bytes", delivered.len());
        }
    }
}

#[test]
fn no_secret_is_in_a_policy() {
    let layout = Layout::make();
    for secrets in [Secrets::Digest, Secrets::Open] {
        for (name, words) in [
            ("postgres", &["not-a-good-one"][..]),
            ("env-from", &["secret\"", "c2VjcmV0"]),
            ("secret-files", &["a2V5", "\"key\""]),
        ] {
            let mut choices = choices();
            choices.secrets = secrets;
            let pod = vec![layout.pod(name)];
            let made = generate(pod, vec![], &strict(), &layout.images(), &choices).unwrap();
            for policy in made.policies {
                let text = policy.document.text();
                for word in words {
                    assert!(!text.contains(word), "{name}: {word}");
                }
            }
        }
    }
}

#[test]
fn files_keep_their_comments_and_say_the_same_and_the_annotation() {
    let layout = Layout::make();
    for name in names() {
        let before = layout.pod(name.as_str());
        let pod = vec![before.clone()];
        let made = generate(pod, vec![], &strict(), &layout.images(), &choices()).unwrap();
        let values = vec!["H4sIAAAA+/=".to_owned(); made.policies.len()];
        let after = annotated(&made, &values).unwrap_or_else(|error| panic!("{name}: {error}"));
        let [after] = after.as_slice() else {
            panic!("{name}: one file in, {} out", after.len());
        };
        // Every line of the file is there; nothing but the annotation was added.
        let comments = |text: &str| {
            text.lines()
                .filter(|l| l.trim_start().starts_with('#'))
                .count()
        };
        assert_eq!(comments(&before.text), comments(&after.text), "{name}");
        let added = after.text.matches("H4sIAAAA+/=").count();
        assert_eq!(added, made.policies.len(), "{name}");
        // A second run replaces the value.
        let pod = vec![after.clone()];
        let again = generate(pod, vec![], &strict(), &layout.images(), &choices()).unwrap();
        assert_eq!(
            again
                .policies
                .iter()
                .map(|p| p.document.text())
                .collect::<Vec<_>>(),
            made.policies
                .iter()
                .map(|p| p.document.text())
                .collect::<Vec<_>>(),
        );
        let values = vec!["other".to_owned(); made.policies.len()];
        let replaced = annotated(&again, &values).unwrap();
        assert!(!replaced[0].text.contains("H4sIAAAA"), "{name}");
        let back = replaced[0].text.replace("other", "H4sIAAAA+/=");
        assert_eq!(back.matches("H4sIAAAA+/=").count(), added, "{name}");
        let patch = patch(&made, &values);
        assert_eq!(
            patch.matches("cc_init_data: \"other\"").count(),
            added,
            "{name}: {patch}"
        );
    }
}

#[test]
fn what_was_looked_up_is_kept_and_used() {
    let layout = Layout::make();
    let cache = tempfile::tempdir().unwrap();
    let pod = || vec![layout.pod("daemon-set"), layout.pod("image-user")];
    let images = layout.cached(cache.path());
    let first = generate(pod(), vec![], &strict(), &images, &choices()).unwrap();
    // What has a digest does not have to be there any more.
    let index = std::fs::read_to_string(layout.directory.path().join("index.json")).unwrap();
    for entry in fs::read_dir(layout.directory.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !index.contains(&name) {
            fs::remove_file(path).unwrap();
        }
    }
    let second = generate(pod(), vec![], &strict(), &images, &choices()).unwrap();
    let texts = |made: &policy_generator::Generated| {
        let documents = made.policies.iter().map(|policy| policy.document.text());
        documents.collect::<Vec<_>>()
    };
    assert_eq!(texts(&first), texts(&second));
}

#[test]
fn arm_has_other_images() {
    let layout = Layout::make();
    let of = |platform: &str| {
        let mut images = layout.images();
        images.platform = platform.parse().unwrap();
        let made = generate(
            vec![layout.pod("nginx")],
            vec![],
            &strict(),
            &images,
            &choices(),
        );
        made.unwrap().policies[0].document.containers[0]
            .image
            .clone()
    };
    assert_ne!(of("linux/amd64"), of("arm64"));
    assert!("linux/s390x".parse::<policy_generator::Platform>().is_err());
}

#[test]
fn a_layer_that_was_changed_gives_no_users() {
    let layout = Layout::make();
    let blobs = layout.directory.path().join("blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            // Behind the archive: it unpacks to the same files.
            bytes.push(0);
            fs::write(&path, bytes).unwrap();
        }
    }
    let pod = vec![layout.pod("image-user")];
    let refused = generate(pod, vec![], &strict(), &layout.images(), &choices()).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("has other bytes than its digest says"),
        "{refused}"
    );
    // Where no number depends on it, no layer is read.
    let pod = vec![layout.pod("nginx")];
    assert!(generate(pod, vec![], &strict(), &layout.images(), &choices()).is_ok());
}
