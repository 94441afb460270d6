//! What registries may do: ask for a login, break off, be busy, have mirrors. A pull copes.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use agent_image_registry::{Credentials, Digest};
use agent_image_unpacking::Progress;
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

/// Gives a new token for each request of one, and takes each once.
fn takes_tokens_once(files: Files) -> Registry {
    let (given, used) = (Mutex::new(0), Mutex::new(BTreeSet::new()));
    Registry::start(move |seen, _| {
        if seen.path.starts_with("/token") {
            let mut given = given.lock().unwrap();
            *given += 1;
            return Some(answer(200, format!(r#"{{"token":"T{given}"}}"#)));
        }
        let token = seen.headers.get("authorization").cloned();
        if token.is_some_and(|token| used.lock().unwrap().insert(token)) {
            return Some(files.answer(&seen.path));
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", seen.headers["host"]);
        Some(answer(401, "").with("WWW-Authenticate", &realm))
    })
}

#[test]
fn tokens_that_live_for_one_request_are_renewed_for_each_of_several_threads() {
    let layers: Vec<Layer> = (0..12)
        .map(|n| gzip(&Tar::new().file(&format!("f{n}"), b"x").end()))
        .collect();
    let mut files = Files::default();
    files.image(&layers);
    let registry = takes_tokens_once(files);
    let directory = directory();
    let mut config = registry.config(&directory.path().join("store"));
    config.parallel_layers = Some(6);
    let puller = agent_image::Puller::build(config).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| puller.pull(&registry.reference("x")).unwrap());
        }
    });
}

#[test]
fn tokens_that_are_always_refused_are_renewed_a_few_times_only() {
    let given = Mutex::new(0);
    let registry = Registry::start(move |seen, _| {
        if seen.path.starts_with("/token") {
            let mut given = given.lock().unwrap();
            *given += 1;
            return Some(answer(200, format!(r#"{{"token":"T{given}"}}"#)));
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", seen.headers["host"]);
        Some(answer(401, "").with("WWW-Authenticate", &realm))
    });
    assert_names(&refusal(&registry), &["refuses access", "give credentials"]);
    assert_eq!(registry.seen().len(), 4 + 3);
}

/// Bytes that do not compress well, nor repeat.
fn long_archive(bytes: u32) -> Vec<u8> {
    let content: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    Tar::new().entry("big", b'0', 0o644, "", &content).end()
}

fn offset(seen: &Seen) -> usize {
    let range = seen.headers.get("range").map_or("bytes=0-", String::as_str);
    let range = range.strip_prefix("bytes=").unwrap();
    range.strip_suffix('-').unwrap().parse().unwrap()
}

/// The rest of a blob from where it was asked for.
fn rest(mut whole: Answer, offset: usize) -> Answer {
    if offset == 0 {
        return whole;
    }
    let size = whole.body.len();
    whole.body.drain(..offset);
    whole.status = 206;
    whole.with(
        "Content-Range",
        &format!("bytes {offset}-{}/{size}", size - 1),
    )
}

#[test]
fn transfers_that_each_bring_something_go_on_however_often_they_break() {
    // Much at a time is asked for again at once; little after a pause that does not grow.
    for (size, piece, longest) in [(24 << 20, 1_100_000, 2), (160_000, 20_000, 4)] {
        let layer = plain(&long_archive(size));
        let mut files = Files::default();
        files.image(std::slice::from_ref(&layer));
        let digest = Digest::sha256(&layer.stored).to_string();
        let registry = Registry::start(move |seen, _| {
            let mut answer = files.answer(&seen.path);
            if seen.path.contains(&digest) {
                answer = rest(answer, offset(seen));
                answer.announced = Some(answer.body.len());
                answer.body.truncate(piece);
            }
            Some(answer)
        });
        let directory = directory();
        let begin = Instant::now();
        registry
            .puller(&directory.path().join("store"))
            .pull(&registry.reference("x"))
            .unwrap();
        let tries = registry.seen().len() - 2;
        assert!(tries > 6, "{tries}");
        assert!(
            begin.elapsed() < Duration::from_secs(longest),
            "{tries} {:?}",
            begin.elapsed()
        );
    }
}

#[test]
fn transfers_that_bring_nothing_new_fail_and_all_counts_agree() {
    let layer = plain(&archive());
    let mut files = Files::default();
    files.image(std::slice::from_ref(&layer));
    let digest = Digest::sha256(&layer.stored).to_string();
    let registry = Registry::start(move |seen, earlier| {
        let mut answer = files.answer(&seen.path);
        if seen.path.contains(&digest) {
            answer = rest(answer, offset(seen));
            answer.announced = Some(answer.body.len());
            answer.body.truncate(if earlier == 0 { 1000 } else { 0 });
        }
        Some(answer)
    });
    let directory = directory();
    let puller = registry.puller(&directory.path().join("store"));
    let progress = Progress::default();
    let error = puller.pull_watched(&registry.reference("x"), &progress);
    let size = layer.stored.len();
    assert_names(
        &error.unwrap_err().sentence(),
        &[&format!("failed after 1000 of {size} bytes")],
    );
    assert_eq!(progress.received_bytes(), 1000);
    assert_eq!(progress.expected_bytes(), size as u64);
    assert_eq!(registry.seen().len(), 2 + 6);
}

#[test]
fn blob_without_a_stated_length_must_end_where_the_manifest_says() {
    let layer = plain(&archive());
    let size = layer.stored.len();
    let digest = Digest::sha256(&layer.stored).to_string();
    let mut files = Files::default();
    files.image(std::slice::from_ref(&layer));
    let serving = |length: usize| {
        let (files, digest) = (files.clone(), digest.clone());
        Registry::start(move |seen, _| {
            let mut answer = files.answer(&seen.path);
            if seen.path.contains(&digest) {
                if offset(seen) > 0 {
                    return Some(support::answer(416, ""));
                }
                answer.body.resize(length, 0);
                answer.unannounced = true;
            }
            Some(answer)
        })
    };
    let directory = directory();
    let registry = serving(size);
    let puller = registry.puller(&directory.path().join("store"));
    puller.pull(&registry.reference("x")).unwrap();
    let longer = refusal(&serving(size + 7));
    assert_names(&longer, &[&format!("sends more than the {size} bytes")]);
    let shorter = refusal(&serving(size - 7));
    let words = format!(
        "no more than {} bytes, but the manifest says {size}",
        size - 7
    );
    assert_names(&shorter, &[&words]);
}

#[test]
fn broken_transfers_are_resumed_where_they_broke() {
    let layer = plain(&long_archive(4_000_000));
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
            if honours_range {
                answer = rest(answer, offset(seen));
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
