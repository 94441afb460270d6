//! The client against servers that play upstream's broker, its quirks, and worse.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_evidence::log::MeasurementLog;
use agent_keys::{KeyError, KeyProvider, ResourceUri};
use agent_keys_broker::{Broker, Guest};
use agent_keys_protocol::{TeeKey, log_evidence};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use support::{Answer, Asked, NONCE, Seen, Server, answer, broker, error, genuine, sealed};

const DAY: i64 = 86_400;

fn uri(tag: &str) -> ResourceUri {
    ResourceUri::parse(&format!("kbs:///default/key/{tag}")).unwrap()
}

fn fetch(broker: &Broker) -> Result<Vec<u8>, KeyError> {
    broker.fetch(&uri("one")).map(|key| key.expose().to_vec())
}

/// What comes of a fetch, and how long the reason is told.
fn refusal(server: &Server) -> KeyError {
    let broker = server.broker().with_patience(Duration::from_secs(5));
    fetch(&broker).unwrap_err()
}

/// A server that is genuine but for resources.
fn resources(behaviour: impl Fn(&mut Seen) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |asked, seen| {
        if asked.path.contains("/resource/") {
            behaviour(seen)
        } else {
            genuine(asked, seen)
        }
    })
}

#[test]
fn ten_keys_asked_at_once_cost_one_attestation() {
    let server = Server::start(genuine);
    let broker = server.broker();
    std::thread::scope(|scope| {
        for tag in 0..10 {
            let broker = &broker;
            scope.spawn(move || {
                let tag = format!("k{tag}");
                let secret = broker.fetch(&uri(&tag)).unwrap();
                assert_eq!(secret.expose(), tag.as_bytes());
            });
        }
    });
    assert_eq!(broker.attestations(), 1);
    assert_eq!((server.count("/auth"), server.count("/attest")), (1, 1));
    assert_eq!(server.count("/resource/"), 10);
    assert_eq!(server.seen.lock().unwrap().additional, [""]);
}

#[test]
fn ten_keys_asked_at_once_of_a_broker_that_refuses_are_one_attempt() {
    let server = Server::start(|_, _| error(401, "AttestationError"));
    let broker = server.broker();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert!(matches!(fetch(&broker), Err(KeyError::Refused { .. }))));
        }
    });
    assert!(server.count("/auth") < 10, "{}", server.count("/auth"));
    assert_eq!(broker.attestations(), 0);
}

#[test]
fn a_missing_or_refused_resource_is_told_apart_and_costs_no_attestation() {
    for (status, kind, absent) in [
        (404, "ResourceNotFound", true),
        (401, "PluginInternalError", true),
        (401, "PolicyDeny", false),
        (403, "", false),
    ] {
        let server = resources(move |_| error(status, kind));
        let broker = server.broker();
        for _ in 0..3 {
            match fetch(&broker).unwrap_err() {
                KeyError::Absent(_) => assert!(absent, "{kind}"),
                KeyError::Refused { .. } => assert!(!absent, "{kind}"),
                other => panic!("{other}"),
            }
        }
        assert_eq!(broker.attestations(), 1, "{kind}");
        assert_eq!(server.count("/resource/"), 3);
    }
}

#[test]
fn a_session_that_is_over_is_attested_anew_once_and_counted() {
    for kind in ["TokenVerifierError", "TokenNotFound"] {
        let server = resources(move |seen| {
            if seen.count("/resource/") == 2 {
                error(401, kind)
            } else {
                answer(200, sealed(seen, "one").to_string())
            }
        });
        let broker = server.broker();
        for _ in 0..3 {
            assert_eq!(fetch(&broker).unwrap(), b"one");
        }
        assert_eq!(broker.attestations(), 2);
        // One that says so for ever is not believed for ever.
        let server = resources(move |_| error(401, kind));
        let broker = server.broker();
        assert!(matches!(fetch(&broker), Err(KeyError::Refused { .. })));
        assert_eq!(broker.attestations(), 2);
    }
}

#[test]
fn a_token_that_ends_by_its_own_times_is_renewed() {
    // It lives for two seconds, of which one is used.
    let server = Server::start(|asked, seen| match genuine(asked, seen) {
        _ if asked.path.ends_with("/attest") => {
            answer(200, r#"{"token":"e30.eyJpYXQiOjEsImV4cCI6M30.c2ln"}"#)
        }
        other => other,
    });
    let broker = server.broker();
    let begun = Instant::now();
    fetch(&broker).unwrap();
    while begun.elapsed() < Duration::from_millis(1100) {
        std::thread::yield_now();
    }
    fetch(&broker).unwrap();
    assert_eq!(broker.attestations(), 2);
}

#[test]
fn the_log_is_sent_where_the_challenge_asks_for_it_and_bound() {
    let server = Server::start(|asked, seen| match genuine(asked, seen) {
        mut answer if asked.path.ends_with("/auth") => {
            let extra = json!({"measurement-log": true});
            answer.body = json!({"nonce": NONCE, "extra-params": extra})
                .to_string()
                .into();
            answer
        }
        answer => answer,
    });
    fetch(&server.broker()).unwrap();
    let expected = log_evidence(MeasurementLog::new().as_bytes());
    assert_eq!(server.seen.lock().unwrap().additional, [expected]);
}

/// A text without its end, or with another beginning.
fn changed(text: &str, cut: bool) -> String {
    match text.split_at_checked(text.len() - 4) {
        Some((whole, _)) if cut => whole.to_owned(),
        _ if text.starts_with('A') => text.replacen('A', "B", 1),
        _ => format!("A{}", &text[1..]),
    }
}

#[test]
fn every_part_of_a_response_that_is_changed_is_refused() {
    for part in ["protected", "encrypted_key", "iv", "ciphertext", "tag"] {
        for cut in [false, true] {
            let server = resources(move |seen| {
                let mut response = sealed(seen, "one");
                let text = response[part].as_str().unwrap();
                let changed = changed(text, cut);
                response[part] = changed.into();
                answer(200, response.to_string())
            });
            let error = refusal(&server);
            assert!(matches!(error, KeyError::Refused { .. }), "{part} {error}");
        }
    }
}

#[test]
fn a_response_for_another_key_is_refused() {
    let server = resources(|_| {
        let other = TeeKey::generate().unwrap();
        let response = other.public().seal(b"one").unwrap();
        answer(200, serde_json::to_vec(&response).unwrap())
    });
    assert!(matches!(refusal(&server), KeyError::Refused { .. }));
}

#[test]
fn headers_that_choose_another_algorithm_or_key_are_refused() {
    for (member, value) in [
        ("alg", json!("RSA-OAEP-256")),
        ("alg", json!("RSA1_5")),
        ("alg", json!("dir")),
        ("alg", json!("ML-KEM-768+A192KW")),
        ("enc", json!("A128GCM")),
        ("kid", json!("another")),
        ("zip", json!("DEF")),
        ("crit", json!(["b64"])),
    ] {
        let header_member = value.clone();
        let server = resources(move |seen| {
            let mut response = sealed(seen, "one");
            let header = URL_SAFE_NO_PAD.decode(response["protected"].as_str().unwrap());
            let mut header: Value = serde_json::from_slice(&header.unwrap()).unwrap();
            header[member] = header_member.clone();
            response["protected"] = URL_SAFE_NO_PAD.encode(header.to_string()).into();
            answer(200, response.to_string())
        });
        let error = refusal(&server);
        assert!(
            matches!(error, KeyError::Refused { .. }),
            "{member} {value}: {error}"
        );
    }
}

#[test]
fn a_wrapped_key_shorter_than_its_wrap_is_refused() {
    for length in [0, 1, 8, 32, 39] {
        let server = resources(move |seen| {
            let mut response = sealed(seen, "one");
            response["encrypted_key"] = URL_SAFE_NO_PAD.encode(vec![1; length]).into();
            answer(200, response.to_string())
        });
        let error = refusal(&server);
        let KeyError::Refused { reason, .. } = &error else {
            panic!("{length}: {error}");
        };
        assert!(reason.contains("encrypted_key"), "{length}: {reason}");
    }
}

#[test]
fn a_clock_that_is_off_by_a_day_changes_nothing() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    for off in [-DAY, 0, DAY] {
        let times = json!({"iat": now + off, "exp": now + off + 300});
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(times.to_string()));
        let server = Server::start(move |asked, seen| match genuine(asked, seen) {
            _ if asked.path.ends_with("/attest") => {
                answer(200, json!({ "token": token }).to_string())
            }
            other => other,
        });
        let broker = server.broker();
        for _ in 0..3 {
            assert_eq!(fetch(&broker).unwrap(), b"one");
        }
        assert_eq!(broker.attestations(), 1, "{off}");
    }
}

#[test]
fn a_broker_that_answers_401_for_everything_is_asked_little() {
    let bodies = [
        json!({"type": "x", "detail": "y"}).to_string(),
        "<html>no</html>".to_owned(),
        "[".repeat(100_000),
        String::new(),
    ];
    for body in bodies {
        let all = body.clone();
        let server = Server::start(move |_, _| answer(401, all.clone()));
        assert!(matches!(refusal(&server), KeyError::Refused { .. }));
        assert_eq!((server.count("/auth"), server.count("")), (1, 1));
        // One that attests guests first, and then has nothing for them.
        let server = resources(move |_| answer(401, body.clone()));
        assert!(matches!(refusal(&server), KeyError::Refused { .. }));
        assert_eq!(server.count("/auth"), 1);
        assert_eq!(server.count("/resource/"), 1);
    }
}

#[test]
fn names_that_are_none_are_asked_of_nobody() {
    let server = Server::start(genuine);
    let broker = server.broker();
    for name in [
        "kbs:///default/key",
        "kbs:///default/key/one/two",
        "kbs:///default/../one",
        "kbs:///default/key/%2e%2e",
        "kbs:///default//one",
        "kbs:///default/key/one?x=y",
        "kbs:///",
    ] {
        if let Ok(uri) = ResourceUri::parse(name) {
            let error = broker.fetch(&uri).unwrap_err();
            assert!(matches!(error, KeyError::Refused { .. }), "{name} {error}");
        }
    }
    assert_eq!(server.count(""), 0);
}

#[test]
fn a_reason_that_a_broker_gives_is_short_and_has_no_control_characters() {
    let server = Server::start(|_, _| {
        let kind = "https://github.com/confidential-containers/kbs/errors/PolicyDeny";
        let detail = format!("\x1b[2J\r\n{}", "x".repeat(100_000));
        answer(401, json!({"type": kind, "detail": detail}).to_string())
    });
    let text = refusal(&server).to_string();
    assert!(text.len() < 1000 && text.contains("PolicyDeny"), "{text}");
    assert!(!text.contains(char::is_control), "{text}");
}

fn challenge(body: &'static str) -> Server {
    Server::start(move |_: &Asked, _: &mut Seen| answer(200, body))
}

#[test]
fn challenges_and_tokens_that_are_none_are_refused() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"nonce":""}"#,
        r#"{"nonce":7}"#,
        r#"{"nonce":"AAAA","extra-params":{"selected-hash-algorithm":"sha512"}}"#,
        r#"{"nonce":"AAAA","extra-params":{"measurement-log":"x"}}"#,
        // A token that would be two headers; both answers are read from the same body.
        r#"{"nonce":"AAAA","token":"a\r\nX: y"}"#,
        r#"{"nonce":"AAAA","token":""}"#,
    ] {
        let server = challenge(body);
        assert!(
            matches!(refusal(&server), KeyError::Refused { .. }),
            "{body}"
        );
        assert_eq!(server.count("/resource/"), 0);
    }
}

#[test]
fn a_broker_of_another_version_is_refused_with_ours_named() {
    let server = Server::start(|_, _| error(401, "AttestationError"));
    let text = refusal(&server).to_string();
    assert!(
        text.contains("0.4.0") && text.contains("AttestationError"),
        "{text}"
    );
}

#[test]
fn redirects_are_not_followed() {
    let server = Server::start(|_, _| {
        let mut answer = answer(302, "");
        answer
            .headers
            .push("Location: https://127.0.0.1:1/".to_owned());
        answer
    });
    assert!(matches!(refusal(&server), KeyError::Refused { .. }));
    assert_eq!(server.count(""), 1);
}

#[test]
fn endless_bodies_silence_and_overload_end_in_time() {
    let endless = || {
        let mut answer = answer(200, "");
        answer
            .headers
            .push("Content-Length: 10000000000".to_owned());
        answer
    };
    let servers = [
        Server::start(move |_, _| endless()),
        Server::start(|_, _| answer(0, "")),
        Server::start(|_, _| error(503, "Full")),
        resources(|_| answer(0, "")),
        resources(|_| error(429, "TooManyRequests")),
    ];
    for server in servers {
        let begun = Instant::now();
        let broker = server.broker().with_patience(Duration::from_secs(3));
        let error = fetch(&broker).unwrap_err();
        assert!(matches!(error, KeyError::Unreachable { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(server.count("") <= 6);
    }
}

#[test]
fn a_server_with_another_certificate_is_asked_nothing() {
    let (server, other) = (Server::start(genuine), Server::start(genuine));
    let url = format!("https://127.0.0.1:{}", server.port);
    let broker = broker(&url, &other.certificate).with_patience(Duration::from_secs(3));
    assert!(matches!(fetch(&broker), Err(KeyError::Unreachable { .. })));
    assert_eq!(server.count(""), 0);
}

#[test]
fn a_guest_that_can_prove_nothing_says_nothing() {
    let server = Server::start(genuine);
    let toml = format!(
        "[token_configs.kbs]\nurl = \"https://127.0.0.1:{}\"\ncert = '''{}'''\n",
        server.port, server.certificate
    );
    let guest = Guest {
        hardware: None,
        log: Box::new(|| None),
        initdata: None,
    };
    let address = agent_keys_broker::Addresses::parse(&toml)
        .unwrap()
        .default
        .unwrap();
    let broker = Broker::new(address, guest);
    assert!(matches!(fetch(&broker), Err(KeyError::Refused { .. })));
    let other = ResourceUri::parse("kbs+pkcs11:///a/b/c").unwrap();
    assert!(matches!(
        broker.fetch(&other),
        Err(KeyError::Refused { .. })
    ));
    assert_eq!(server.count(""), 0);
}
