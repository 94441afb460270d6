//! What registries may do: ask for a login, break off, be busy, have mirrors. A pull copes.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use agent_image_registry::{Credentials, Digest};
use support::{refusals::*, *};

fn logged_in(registry: &Registry, store: &Path) -> agent_image::Puller {
    let mut config = registry.config(store);
    let json = format!(
        r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dTpw"}}}}}}"#,
        registry.port
    );
    config.credentials = Credentials::parse(json.as_bytes()).unwrap();
    agent_image::Puller::build(config).unwrap()
}

#[test]
fn basic_authentication_is_done_when_asked_for() {
    let mut files = Files::default();
    files.image(&[plain(&archive())]);
    let registry = Registry::start(move |seen, _| {
        match seen.headers.get("authorization").map(String::as_str) {
            Some("Basic dTpw") => Some(files.answer(&seen.path)),
            _ => Some(answer(401, "").with("WWW-Authenticate", "Basic realm=\"r\"")),
        }
    });
    let directory = directory();
    let puller = logged_in(&registry, &directory.path().join("store"));
    puller.pull(&registry.reference("x")).unwrap();
    let refused = registry
        .seen()
        .iter()
        .filter(|seen| !seen.headers.contains_key("authorization"))
        .count();
    assert_eq!(
        (refused, registry.seen().len()),
        (1, 1 + 3),
        "asked once, then remembered"
    );
    assert_names(&refusal(&registry), &["refuses access", "give credentials"]);
}

#[test]
fn bearer_token_is_fetched_once_and_credentials_stay_with_their_origin() {
    let mut files = Files::default();
    files.image(&[plain(&archive()), gzip(&archive())]);
    let storage_files = files.clone();
    let storage = Registry::serving(storage_files);
    let storage_port = storage.port;
    let registry = Registry::start(move |seen, _| {
        let authorization = seen.headers.get("authorization").map(String::as_str);
        if seen.path.starts_with("/token?") {
            assert_eq!(authorization, Some("Basic dTpw"));
            assert!(
                seen.path.contains("service=s%26t")
                    && seen.path.contains("scope=repository%3Ax%3Apull")
            );
            return Some(answer(200, r#"{"token":"T","expires_in":300}"#));
        }
        if authorization != Some("Bearer T") {
            let host = &seen.headers["host"];
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"s&t\",scope=\"repository:x:pull\""
            );
            return Some(answer(401, "").with("WWW-Authenticate", &challenge));
        }
        if seen.path.contains("/blobs/") {
            let location = format!("http://127.0.0.1:{storage_port}{}?signature=s", seen.path);
            return Some(answer(307, "").with("Location", &location));
        }
        Some(files.answer(&seen.path))
    });
    let directory = directory();
    let puller = logged_in(&registry, &directory.path().join("store"));
    puller.pull(&registry.reference("x")).unwrap();
    assert_eq!(
        registry
            .seen()
            .iter()
            .filter(|seen| seen.path.starts_with("/token"))
            .count(),
        1
    );
    assert!(!storage.seen().is_empty());
    assert!(
        storage
            .seen()
            .iter()
            .all(|seen| !seen.headers.contains_key("authorization"))
    );
}

#[test]
fn broken_transfers_are_resumed_where_they_broke() {
    let big = Tar::new()
        .entry(
            "big",
            b'0',
            0o644,
            "",
            &(0..4_000_000u32)
                .map(|n| (n.wrapping_mul(n) >> 7) as u8)
                .collect::<Vec<_>>(),
        )
        .end();
    let layer = plain(&big);
    let digest = Digest::sha256(&layer.stored).to_string();
    for honours_range in [true, false] {
        let mut files = Files::default();
        files.image(std::slice::from_ref(&layer));
        let digest = digest.clone();
        let registry = Registry::start(move |seen, earlier| {
            let mut answer = files.answer(&seen.path);
            if !seen.path.contains(&digest) {
                return Some(answer);
            }
            let whole = answer.body.len();
            let range = seen.headers.get("range").filter(|_| honours_range);
            if let Some(offset) = range.and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse::<usize>()
                    .ok()
            }) {
                answer.body.drain(..offset);
                answer.status = 206;
                answer = answer.with(
                    "Content-Range",
                    &format!("bytes {offset}-{}/{whole}", whole - 1),
                );
            }
            if earlier < 3 {
                answer.announced = Some(answer.body.len());
                answer.body.truncate(answer.body.len() / 2);
            }
            Some(answer)
        });
        let directory = directory();
        registry
            .puller(&directory.path().join("store"))
            .pull(&registry.reference("x"))
            .unwrap();
        let asked: Vec<_> = registry
            .seen()
            .iter()
            .filter_map(|seen| seen.headers.get("range").cloned())
            .collect();
        assert_eq!(asked.len(), 3, "{asked:?}");
    }
}

#[test]
fn resumed_transfer_must_continue_where_asked() {
    let layer = plain(&archive());
    let mut files = Files::default();
    files.image(std::slice::from_ref(&layer));
    let digest = Digest::sha256(&layer.stored).to_string();
    let registry = Registry::start(move |seen, earlier| {
        let mut answer = files.answer(&seen.path);
        if !seen.path.contains(&digest) {
            return Some(answer);
        }
        if earlier == 0 {
            answer.announced = Some(answer.body.len());
            answer.body.truncate(1000);
            return Some(answer);
        }
        answer.status = 206;
        Some(answer.with("Content-Range", "bytes 0-9/10"))
    });
    assert_names(
        &refusal(&registry),
        &["was asked to continue at byte", "bytes 0-9/10"],
    );
}

#[test]
fn busy_registries_are_asked_again_when_they_say() {
    let mut files = Files::default();
    files.image(&[plain(&archive())]);
    let registry = Registry::start(move |seen, earlier| match earlier {
        0 => Some(answer(429, "").with("Retry-After", "1")),
        1 => Some(answer(503, "")),
        _ => Some(files.answer(&seen.path)),
    });
    let directory = directory();
    let begin = Instant::now();
    registry
        .puller(&directory.path().join("store"))
        .pull(&registry.reference("x"))
        .unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let always = Registry::start(|_, _| Some(answer(500, "")));
    assert_names(&refusal(&always), &["answers with status 500"]);
    assert_eq!(always.seen().len(), 6);
}

#[test]
fn mirrors_are_asked_first_and_the_registry_itself_last() {
    let mut files = Files::default();
    files.image(&[plain(&archive())]);
    let (mirror, registry) = (
        Registry::serving(Files::default()),
        Registry::serving(files),
    );
    let directory = directory();
    let mut config = registry.config(&directory.path().join("store"));
    let location = format!("127.0.0.1:{}", mirror.port);
    config.registries[0].mirrors = vec![agent_image_registry::Mirror {
        location,
        insecure: true,
    }];
    agent_image::Puller::build(config)
        .unwrap()
        .pull(&registry.reference("x"))
        .unwrap();
    assert_eq!(mirror.seen().len(), 1);
}

#[test]
fn layer_wanted_by_several_pulls_at_once_is_fetched_once() {
    let mut files = Files::default();
    // The second layer implies its directory, so it is settled on the first.
    files.image(&[gzip(&archive()), gzip(&Tar::new().file("d/g", b"x").end())]);
    let registry = Registry::start(move |seen, _| {
        std::thread::sleep(Duration::from_millis(50));
        Some(files.answer(&seen.path))
    });
    let directory = directory();
    let puller = registry.puller(&directory.path().join("store"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| puller.pull(&registry.reference("x")).unwrap());
        }
    });
    let manifests = registry
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("/manifests/"))
        .count();
    assert_eq!((manifests, registry.seen().len()), (4, 4 + 4 + 2));
}
