//! `kata-cc verify` with a key server: fetching, keeping, revocation, limits.
//!
//! Needs what `verify.rs` needs.

#![expect(clippy::unwrap_used, reason = "this is all test code")]

mod owner;
mod scene;

use std::path::Path;

use scene::Scene;
use tests_simulated_psp::{
    authority::Authority,
    kds::{Behaviour, INTERMEDIATE, Kds},
};

/// A scene whose certificates come from a key server.
fn served() -> Option<(Scene, Kds)> {
    let mut scene = Scene::open()?;
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authority");
    let authority = Authority::open(&authority).unwrap();
    let kds = Kds::start(authority, "127.0.0.1:0".parse().unwrap()).unwrap();
    scene.endorsed = false;
    scene.arguments = ["--store", &scene.path("store"), "--kds", &kds.url()]
        .map(str::to_owned)
        .to_vec();
    Some((scene, kds))
}

#[test]
fn what_the_store_lacks_is_fetched_once_and_the_list_each_time() {
    let Some((scene, kds)) = served() else { return };
    assert_eq!(scene.refusals(), [""; 0]);
    let first = kds.requests();
    assert_eq!(
        first[..2],
        ["/vcek/v1/Genoa/cert_chain", "/vcek/v1/Genoa/crl"]
    );
    assert!(first[2].contains("?blSPL=10&teeSPL=1&snpSPL=23&ucodeSPL=217"));
    assert_eq!(first.len(), 3);
    assert_eq!(scene.refusals(), [""; 0]);
    assert_eq!(kds.requests(), ["/vcek/v1/Genoa/crl"]);
}

#[test]
fn a_server_that_is_down_leaves_what_the_store_has() {
    let Some((scene, kds)) = served() else { return };
    kds.behave(Behaviour {
        down: true,
        ..Behaviour::default()
    });
    let output = scene.verify(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("503"));
    kds.behave(Behaviour::default());
    assert_eq!(scene.refusals(), [""; 0]);
    kds.behave(Behaviour {
        down: true,
        ..Behaviour::default()
    });
    assert_eq!(scene.refusals(), [""; 0]);
}

#[test]
fn a_revoked_intermediate_is_refused_at_once() {
    let Some((scene, kds)) = served() else { return };
    assert_eq!(scene.refusals(), [""; 0]);
    kds.behave(Behaviour {
        revoked: vec![INTERMEDIATE],
        ..Behaviour::default()
    });
    assert_eq!(scene.refusals(), ["revocation"]);
}

#[test]
fn a_limit_is_obeyed_as_long_as_it_is_short() {
    let Some((scene, kds)) = served() else { return };
    kds.behave(Behaviour {
        limited: 2,
        retry_after: 1,
        ..Behaviour::default()
    });
    let start = std::time::Instant::now();
    assert_eq!(scene.refusals(), [""; 0]);
    assert!(start.elapsed() >= std::time::Duration::from_secs(2));
    assert_eq!(kds.requests().len(), 5);
    let Some((scene, kds)) = served() else { return };
    kds.behave(Behaviour {
        limited: 1,
        retry_after: 3600,
        ..Behaviour::default()
    });
    let output = scene.verify(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("3600 s"));
}

#[test]
fn a_chip_that_the_server_does_not_know_is_named() {
    let Some((mut scene, _kds)) = served() else {
        return;
    };
    let stranger = tempfile::tempdir().unwrap();
    scene.authority = Authority::open(&stranger.path().join("authority")).unwrap();
    let output = scene.verify(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("the key server has no /vcek/v1/Genoa/")
    );
}
