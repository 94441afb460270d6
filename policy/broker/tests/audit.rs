//! The audit log on a disk of somebody else's.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::{fs, path::Path};

use agent_evidence::Sha256Digest;
use policy_broker::audit::{self, Audit, AuditError, FILE, Line};

fn line(resource: &str, given: bool) -> Line {
    Line {
        time: "2026-01-01T00:00:00Z".parse().unwrap(),
        asked: "resource".to_owned(),
        peer: "10.0.0.1".to_owned(),
        resource: Some(resource.to_owned()),
        given,
        times: 1,
        guest: None,
        refusals: Vec::new(),
        previous: Sha256Digest::ZERO,
    }
}

/// A log of three decisions; gives its lines.
fn log(directory: &Path) -> Vec<String> {
    let mut audit = Audit::open(directory).unwrap();
    for (resource, given) in [("a/b/1", true), ("a/b/2", false), ("a/b/3", true)] {
        audit.write(line(resource, given)).unwrap();
    }
    let text = fs::read_to_string(directory.join(FILE)).unwrap();
    text.lines().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_line_that_was_changed_removed_or_added_breaks_the_chain_and_is_named() {
    let place = tempfile::tempdir().unwrap();
    let whole = log(place.path());
    assert_eq!(audit::read(place.path(), 10).unwrap().count, 3);
    let changed = whole[1].replace("false", "true");
    assert_ne!(changed, whole[1]);
    for (lines, broken) in [
        (vec![&whole[0], &changed, &whole[2]], 3),
        (vec![&whole[0], &whole[2]], 2),
        (vec![&whole[1], &whole[2]], 1),
        (vec![&whole[0], &whole[0], &whole[1], &whole[2]], 2),
    ] {
        let text: String = lines.into_iter().map(String::as_str).collect();
        fs::write(place.path().join(FILE), text).unwrap();
        for refused in [
            audit::read(place.path(), 10).map(drop),
            Audit::open(place.path()).map(drop),
        ] {
            assert!(
                matches!(refused, Err(AuditError::Broken { line, .. }) if line == broken),
                "{refused:?}"
            );
        }
    }
}

#[test]
fn the_end_that_a_kill_cut_off_goes_and_the_chain_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let whole = log(place.path());
    let head = audit::read(place.path(), 0).unwrap().head;
    let half = whole.concat() + &whole[2][..20];
    fs::write(place.path().join(FILE), half).unwrap();
    let mut audit = Audit::open(place.path()).unwrap();
    audit.write(line("a/b/4", true)).unwrap();
    let read = audit::read(place.path(), 1).unwrap();
    assert_eq!((read.count, read.lines.last().unwrap().previous), (4, head));
}

#[test]
fn a_second_broker_does_not_write_into_the_log_of_the_first() {
    let place = tempfile::tempdir().unwrap();
    let _first = Audit::open(place.path()).unwrap();
    assert!(matches!(
        Audit::open(place.path()),
        Err(AuditError::Used(_))
    ));
}
