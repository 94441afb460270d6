//! The time that a pull may take: it ends every wait, and all work on what came.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use agent_image::{Config, Puller};
use agent_image_registry::Reference;
use support::{refusals::*, *};

const LIMIT: Duration = Duration::from_secs(1);
/// Enough for a slow machine, and far from any other limit.
const SOON: Duration = Duration::from_secs(15);

/// Pulls with a second for all of it, and much more for any silence.
fn refusal_in_time(mut config: Config, reference: &Reference) -> String {
    config.silence = Duration::from_secs(60);
    config.pull_deadline = LIMIT;
    let store = config.store.clone();
    let puller = Puller::build(config).unwrap();
    let begin = Instant::now();
    let error = puller.pull(reference).unwrap_err();
    assert!(begin.elapsed() >= LIMIT, "{}", error.sentence());
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert_empty(&store);
    error.sentence()
}

/// Before its last byte.
fn fall_silent(answer: &mut Answer) {
    answer.announced = Some(answer.body.len());
    answer.body.pop();
    answer.stall = true;
}

#[test]
fn registry_that_accepts_and_stays_silent_is_waited_for_no_longer_than_the_whole_pull_may_take() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let registry = Registry::serving(Files::default());
    for insecure in [true, false] {
        let directory = directory();
        let mut config = registry.config(&directory.path().join("store"));
        config.registries[0].prefix = format!("127.0.0.1:{port}");
        config.registries[0].insecure = insecure;
        let reference = Reference::parse(&format!("127.0.0.1:{port}/x")).unwrap();
        let sentence = refusal_in_time(config, &reference);
        assert_names(&sentence, &["did not finish within 1 seconds", "network"]);
    }
}

#[test]
fn body_and_token_server_that_fall_silent_are_waited_for_no_longer_either() {
    let mut files = Files::default();
    files.image(&[gzip(&archive())]);
    for silent in ["/blobs/", "/manifests/", "/token"] {
        let files = files.clone();
        let registry = Registry::start(move |seen, _| {
            let mut answer = match seen.headers.get("authorization") {
                None if silent == "/token" && !seen.path.starts_with("/token") => {
                    let realm = format!("Bearer realm=\"http://{}/token\"", seen.headers["host"]);
                    answer(401, "").with("WWW-Authenticate", &realm)
                }
                _ if seen.path.starts_with("/token") => answer(200, r#"{"token":"T"}"#),
                _ => files.answer(&seen.path),
            };
            if seen.path.contains(silent) {
                fall_silent(&mut answer);
            }
            Some(answer)
        });
        let directory = directory();
        let config = registry.config(&directory.path().join("store"));
        let sentence = refusal_in_time(config, &registry.reference("x"));
        assert_names(&sentence, &["did not finish within 1 seconds", "network"]);
    }
}

/// Frames that together unpack to much, whose hash alone takes longer than the limit.
fn endless(frames: usize) -> Layer {
    let zeros = zstd::encode_all(&vec![0; 256 << 20][..], 1).unwrap();
    let mut stored = zstd::encode_all(&archive()[..], 1).unwrap();
    for _ in 0..frames {
        stored.extend_from_slice(&zeros);
    }
    Layer {
        media_type: format!("{OCI_LAYER}+zstd"),
        stored,
        ..plain(&archive())
    }
}

#[test]
fn unpacking_ends_with_the_time_and_does_not_blame_the_network() {
    // Few enough to be fetched whole at once; and more than the buffers hold.
    for frames in [100, 1000] {
        let mut files = Files::default();
        files.image(&[endless(frames)]);
        let registry = Registry::serving(files);
        let directory = directory();
        let mut config = registry.config(&directory.path().join("store"));
        config.layer_max_bytes = 1 << 50;
        let sentence = refusal_in_time(config, &registry.reference("x"));
        let words = [
            "unpacking was not finished",
            "whole pull, 1 seconds, is over",
        ];
        assert_names(&sentence, &words);
        assert!(!sentence.contains("network"), "{sentence}");
    }
}
