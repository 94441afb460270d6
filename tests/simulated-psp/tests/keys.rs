//! The agent's own client asks the owner's own broker.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

/// A broker, and what its own tests make reports with.
#[path = "../../../policy/broker/tests/bed/mod.rs"]
mod bed;

use std::{sync::Arc, thread};

use agent_evidence::{
    Obtained, ReportData,
    tee::{Tee, TeeError, TeeKind},
};
use agent_keys::{KeyError, KeyProvider, ResourceUri};
use agent_keys_broker::{Addresses, Broker, Brokers, Guest};
use agent_keys_protocol::ResourceName;
use tests_simulated_psp::serve::{ASK, VCEK, table_of};

use self::bed::{Bed, HOST_DATA, KEY, MEASUREMENT, NAME, log, support::scene::Scene};

/// The processor of a guest whose report differs in one byte, or in none.
struct Processor {
    scene: Scene,
    changed: Option<usize>,
}

impl Tee for Processor {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let mut report = self.scene.report;
        report[0x50..0x90].copy_from_slice(&report_data.0);
        if let Some(at) = self.changed {
            report[at] ^= 1;
        }
        self.scene.chip.sign(&mut report);
        let certificates = [
            (VCEK, self.scene.leaf.build()),
            (ASK, self.scene.issuer.build()),
        ];
        Ok(Obtained {
            report: report.to_vec(),
            certificates: table_of(&certificates).unwrap(),
        })
    }
}

/// How initdata names a broker in this table.
fn entry(table: &str, bed: &Bed) -> String {
    let url = bed.url.strip_suffix("/kbs/v0").unwrap();
    let certificate = &bed.certificate;
    format!("[token_configs.{table}]\nurl = \"{url}\"\ncert = \"\"\"{certificate}\"\"\"\n")
}

fn proof(bed: &Bed, changed: Option<usize>, is_bound: bool) -> Guest {
    let mut scene = Scene::genoa();
    scene.report = bed.scene.report;
    Guest {
        hardware: Some(Arc::new(Processor { scene, changed })),
        log: Box::new(move || Some(log(is_bound, 1))),
        initdata: None,
    }
}

fn guest(bed: &Bed, changed: Option<usize>, is_bound: bool) -> Broker {
    let addresses = Addresses::parse(&entry("kbs", bed)).unwrap();
    Broker::new(addresses.default.unwrap(), proof(bed, changed, is_bound))
}

fn uri(name: &str) -> ResourceUri {
    ResourceUri::parse(&format!("kbs:///{name}")).unwrap()
}

#[test]
fn ten_keys_at_once_cost_a_genuine_guest_one_attestation() {
    let bed = Bed::new("");
    let guest = guest(&bed, None, true);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(guest.fetch(&uri(NAME)).unwrap().expose(), KEY));
        }
    });
    let absent = guest.fetch(&uri("default/key/none"));
    assert!(matches!(absent, Err(KeyError::Absent(_))), "{absent:?}");
    assert_eq!(guest.attestations(), 1);
}

#[test]
fn a_guest_that_booted_something_else_hears_no_and_gets_no_key() {
    let bed = Bed::new("");
    for (changed, is_bound) in [
        (Some(MEASUREMENT), true),
        (Some(HOST_DATA), true),
        (None, false),
    ] {
        let guest = guest(&bed, changed, is_bound);
        let refused = guest.fetch(&uri(NAME));
        assert!(
            matches!(refused, Err(KeyError::Refused { .. })),
            "{changed:?}: {refused:?}"
        );
        assert_eq!(guest.attestations(), 0);
    }
}

/// Each owner has a broker with files of its own; the pod's initdata names both.
#[test]
fn two_owners_release_for_one_pod_each_by_an_attestation_and_a_policy_of_its_own() {
    const OF_SECOND: &str = "second/key/web";
    let first = Bed::new("");
    let second = Bed::new("");
    let directory = second.place.path().join("broker");
    let narrow = "package policy\n\nallow if data[\"resource-path\"][0] == \"second\"\n";
    std::fs::write(directory.join("second.rego"), narrow).unwrap();
    let configuration = directory.join("broker.toml");
    let text = std::fs::read_to_string(&configuration).unwrap();
    let text = text + "resource_policy = \"second.rego\"\n";
    std::fs::write(&configuration, text).unwrap();
    let key = second.place.path().join("store.key");
    let store = policy_broker::identity::open_store(&directory, &key).unwrap();
    store
        .put(&ResourceName::parse(OF_SECOND).unwrap(), b"of the second")
        .unwrap();

    let aa = entry("kbs", &first) + &entry("kbs_of_repository.second", &second);
    let guest = Brokers::new(Addresses::parse(&aa).unwrap(), || proof(&first, None, true));
    assert_eq!(guest.fetch(&uri(NAME)).unwrap().expose(), KEY);
    assert_eq!(
        guest.fetch(&uri(OF_SECOND)).unwrap().expose(),
        b"of the second"
    );
    assert_eq!(guest.attestations(), 2);

    // Neither gives what the other has.
    let swapped = entry("kbs", &second) + &entry("kbs_of_repository.second", &first);
    let guest = Brokers::new(Addresses::parse(&swapped).unwrap(), || {
        proof(&first, None, true)
    });
    let of_first = guest.fetch(&uri(NAME));
    assert!(
        matches!(of_first, Err(KeyError::Refused { .. })),
        "{of_first:?}"
    );
    let of_second = guest.fetch(&uri(OF_SECOND));
    assert!(
        matches!(of_second, Err(KeyError::Absent(_))),
        "{of_second:?}"
    );

    // Nobody is asked who was not named.
    let only = entry("kbs_of_repository.second", &second);
    let guest = Brokers::new(Addresses::parse(&only).unwrap(), || {
        proof(&first, None, true)
    });
    let refused = guest.fetch(&uri(NAME));
    assert!(
        matches!(refused, Err(KeyError::Refused { .. })),
        "{refused:?}"
    );
    assert_eq!(guest.attestations(), 0);
}

#[test]
fn what_one_owners_broker_issued_is_worth_nothing_to_anothers() {
    let (one, other) = (Bed::new(""), Bed::new(""));
    let (cookie, token, _) = one.attested(&log(true, 1));
    let bearer = format!("Bearer {token}");
    for header in [("Cookie", cookie.as_str()), ("Authorization", &bearer)] {
        assert_eq!(one.get(NAME, header).0, 200);
        let (status, text) = other.get(NAME, header);
        assert_eq!(status, 401, "{text}");
    }
}
